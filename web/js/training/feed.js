/**
 * This page's copy of the server's sessions: updated by events, fetched whole after a reload, a lost connection or a gap
 * in the numbers.
 */

import { applySnapshot, applyUpdate, reused } from "./session.js";

/** @typedef {import("./session.js").Session} Session */

export class Feed {
  /**
   * @param {() => Promise<Session[]>} fetchAll asks the server for all sessions
   */
  constructor(fetchAll) {
    this.fetchAll = fetchAll;
    /** @type {Map<string, Session>} by workflow and node, in order of their beginning */
    this.sessions = new Map();
    /** @type {Set<() => void>} */
    this.listeners = new Set();
    /** @type {Promise<void> | null} the fetch in progress */
    this.fetching = null;
    /** Whether to fetch once more after the fetch in progress. */
    this.again = false;
    /**
     * Keys of the runs that began after the fetch in progress: its answer may not know them yet.
     *
     * @type {Set<string>}
     */
    this.began = new Set();
    /** Whether the last fetch failed. */
    this.stale = false;
  }

  /**
   * Call `listener` after every change.
   *
   * @param {() => void} listener
   * @returns {() => void} ends the subscription
   */
  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /**
   * The session of a node; of several instances of a subgraph the one that began last.
   *
   * @param {string} workflow the graph's id
   * @param {string[]} ids the node's execution ids
   */
  find(workflow, ids) {
    return [...this.sessions.values()]
      .filter((session) => session.workflow === workflow && ids.includes(session.node)).at(-1);
  }

  /**
   * The session to show on a node: its own, or that of a result which it put out since then and which was trained
   * elsewhere.
   *
   * @param {string} workflow the graph's id
   * @param {string[]} ids the node's execution ids
   * @param {import("./session.js").Output | undefined} output
   */
  show(workflow, ids, output) {
    const own = this.find(workflow, ids);
    if (!output || own?.run !== output.after || own?.run === output.run) return own;
    return reused([...this.sessions.values()].find(({ run }) => run === output.run), output);
  }

  /**
   * Apply an update from the server; fetch everything when an earlier update turns out to be missing.
   *
   * @param {Session} update
   */
  receive(update) {
    const key = keyOf(update);
    const known = this.sessions.get(key);
    const { session, missed } = applyUpdate(known, update);
    if (session) {
      if (session.run !== known?.run) {
        this.sessions.delete(key);
        this.began.delete(key);
        this.began.add(key);
      }
      this.sessions.set(key, session);
      this.notify();
    }
    if (missed || this.stale) this.refresh();
  }

  /**
   * Fetch everything: at the start, and whenever the connection is back. At most one fetch runs at a time.
   *
   * @returns {Promise<void>}
   */
  refresh() {
    if (this.fetching) {
      this.again = true;
      return this.fetching;
    }
    this.fetching = this.load().finally(() => {
      this.fetching = null;
      if (this.again) {
        this.again = false;
        this.refresh();
      }
    });
    return this.fetching;
  }

  /** Fetch the sessions, and keep those that began meanwhile. */
  async load() {
    this.began.clear();
    /** @type {Map<string, Session>} */
    const sessions = new Map();
    try {
      for (const snapshot of await this.fetchAll()) {
        const key = keyOf(snapshot);
        sessions.set(key, applySnapshot(this.sessions.get(key), snapshot));
      }
    } catch {
      this.stale = true; // The server is away; the next event or reconnect asks again.
      return;
    }
    for (const key of this.began) {
      const session = this.sessions.get(key);
      if (!session || sessions.get(key)?.run === session.run) continue;
      sessions.delete(key);
      sessions.set(key, session);
    }
    this.stale = false;
    this.sessions = sessions;
    this.notify();
  }

  /** Call every listener. */
  notify() {
    for (const listener of this.listeners) listener();
  }
}

/** @param {Session} session */
function keyOf({ workflow, node }) {
  return JSON.stringify([workflow, node]);
}
