// Follows what goes on: the server says that there is more, and the parts of the page that show it are fetched anew.
// Without this module the page has a link that shows what is new; with it that link comes back when following stops.

const at = document.querySelector("[data-live]");

if (at) {
  const link = at.querySelector("a");
  const source = new EventSource(at.dataset.live);
  let isFetching = false;
  let isStale = false;

  const renew = async () => {
    if (isFetching) {
      isStale = true;
      return;
    }
    isFetching = true;
    do {
      isStale = false;
      await fetchParts();
    } while (isStale);
    isFetching = false;
  };

  source.addEventListener("changed", renew);
  source.addEventListener("ended", async () => {
    source.close();
    await renew();
    // What can be done with it has changed too, unless only its parts say more: then what was typed stays.
    if (at.dataset.liveEnds === "part") at.remove();
    // By GET, not anew: a page that is the answer to a refused form would send that again.
    else location.replace(location.pathname + location.search);
  });
  source.addEventListener("open", () => {
    at.textContent = at.dataset.liveSays;
  });
  // The browser tries again after an interruption, but not after an answer that is no stream: a refusal, the sign-in.
  source.addEventListener("error", () => {
    const isOver = source.readyState === EventSource.CLOSED;
    at.replaceChildren(isOver ? at.dataset.liveStops : at.dataset.liveWaits, " ", link);
  });
}

// Put the new contents of each part in the place of the old ones; what is open stays open, and the focus stays where it is.
async function fetchParts() {
  let answer;
  try {
    answer = await fetch(location.href, { headers: { accept: "text/html" } });
  } catch {
    return; // The server restarts: the next event asks again.
  }
  if (!answer.ok || answer.redirected) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live-part]")) {
    const fresh = page.querySelector(`[data-live-part="${part.dataset.livePart}"]`);
    if (fresh) replace(part, fresh);
  }
}

function replace(part, fresh) {
  const open = [...part.querySelectorAll("details")].map((one) => one.open);
  [...fresh.querySelectorAll("details")].forEach((one, n) => {
    one.open = open[n] ?? false;
  });
  const focused = focusable(part).indexOf(document.activeElement);
  part.replaceChildren(...fresh.childNodes);
  if (focused >= 0) focusable(part)[focused]?.focus({ preventScroll: true });
}

function focusable(part) {
  return [...part.querySelectorAll("a[href], button, summary, [tabindex='0']")];
}
