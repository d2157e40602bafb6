/** The order of the pack's templates. */

/**
 * Have the editor list a pack's templates by the numbers in their names: the host lists files as the disk does.
 *
 * @param {{ getWorkflowTemplates?: () => Promise<Record<string, string[]>> }} api
 * @param {string} pack the folder's name
 */
export function orderTemplates(api, pack) {
  const list = api.getWorkflowTemplates;
  if (!list) return;
  api.getWorkflowTemplates = async function () {
    const templates = await list.call(this);
    const own = templates[pack];
    if (!own) return templates;
    return { ...templates, [pack]: [...own].sort((a, b) => a.localeCompare(b, "en", { numeric: true })) };
  };
}

/**
 * The name of the folder that a script of the pack is served from.
 *
 * @param {string} url of the script, such as ".../extensions/ComfyUI-Atelier/js/atelier.js"
 */
export function packOf(url) {
  return decodeURIComponent(/\/extensions\/([^/]+)\//.exec(url)?.[1] ?? "");
}
