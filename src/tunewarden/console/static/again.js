// Looks again at a page that goes on by itself, each second, until the part `data-again` says so no more. Without this
// module the page has a link that does the same.

const PAUSE_MS = 1000;
const part = document.querySelector("[data-again]");

if (part) setTimeout(look, PAUSE_MS);

async function look() {
  const fresh = await fetchPart();
  if (fresh) part.replaceChildren(...fresh.childNodes);
  if (!fresh || fresh.hasAttribute("data-again")) {
    setTimeout(look, PAUSE_MS);
  } else if (part.dataset.again === "page") {
    // Other parts of the page have changed too.
    location.reload();
  }
}

// Return the part as it is now; null if the server does not answer, or nobody is signed in any more.
async function fetchPart() {
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.redirected) location.reload(); // the session has ended
    if (!answer.ok || answer.redirected) return null;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    return page.querySelector("#progress");
  } catch {
    return null;
  }
}
