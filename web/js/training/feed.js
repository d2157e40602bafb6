/**
 * The sessions of the server, as far as this page knows them: told by events, fetched whole after a reload, a lost
 * connection or a gap in the numbers.
 */

import { takeNews, takeSnapshot } from "./session.js";

export class Feed {
  /**
   * @param {() => Promise<import("./session.js").Session[]>} fetchAll asks the server for all sessions
   */
  constructor(fetchAll) {
    this.fetchAll = fetchAll;
    this.sessions = new Map();
    this.listeners = new Set();
    this.fetching = null;
    this.again = false;
    /** Keys of the runs that began since the running fetch did: its answer may be older than they are. */
    this.began = new Set();
    /** Whether the last fetch failed. */
    this.stale = false;
  }

  /** Call `listener` after every change; returns how to end that. */
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
    let found;
    // In order of beginning, oldest first.
    for (const session of this.sessions.values()) {
      if (session.workflow === workflow && ids.includes(session.node)) found = session;
    }
    return found;
  }

  /** Take in an event; fetches what it shows to be missing. */
  take(news) {
    const key = keyOf(news);
    const known = this.sessions.get(key);
    const { session, missed } = takeNews(known, news);
    if (session) {
      if (session.run !== known?.run) {
        this.sessions.delete(key);
        this.began.delete(key);
        this.began.add(key);
      }
      this.sessions.set(key, session);
      this.tell();
    }
    if (missed || this.stale) this.refresh();
  }

  /** Fetch everything anew: at the start, and whenever the connection is back. Never twice at once. */
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

  async load() {
    this.began.clear();
    const sessions = new Map();
    try {
      for (const snapshot of await this.fetchAll()) {
        const key = keyOf(snapshot);
        sessions.set(key, takeSnapshot(this.sessions.get(key), snapshot));
      }
    } catch {
      this.stale = true; // The server is away; the next event or reconnect asks again.
      return;
    }
    for (const key of this.began) {
      const session = this.sessions.get(key);
      if (sessions.get(key)?.run === session.run) continue;
      sessions.delete(key);
      sessions.set(key, session);
    }
    this.stale = false;
    this.sessions = sessions;
    this.tell();
  }

  tell() {
    for (const listener of this.listeners) listener();
  }
}

function keyOf({ workflow, node }) {
  return JSON.stringify([workflow, node]);
}
