/**
 * copy puts text on the clipboard. Web views and pages that embed us without allow="clipboard-write" have no Clipboard API
 * for us; there the old command copies, for which something must be selected in some of them.
 */
export async function copy(text: string, shown: HTMLElement): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyByCommand(text, shown);
  }
}

function copyByCommand(text: string, shown: HTMLElement): boolean {
  const put = (event: ClipboardEvent): void => {
    event.clipboardData?.setData("text/plain", text);
    event.preventDefault();
  };
  const selection = window.getSelection();
  document.addEventListener("copy", put);
  try {
    selection?.selectAllChildren(shown);
    return document.execCommand("copy");
  } catch {
    return false;
  } finally {
    document.removeEventListener("copy", put);
    selection?.removeAllRanges();
  }
}
