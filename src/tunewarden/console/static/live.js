// Follows what goes on: the server says that there is more, and the part of the page that shows it is fetched anew.
// Without this module the page has a link that shows what is new.

const at = document.querySelector("[data-live]");
const part = document.querySelector("[data-live-part]");

if (at && part) {
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
      await fetchPart();
    } while (isStale);
    isFetching = false;
  };

  source.addEventListener("changed", renew);
  source.addEventListener("ended", async () => {
    source.close();
    await renew();
    // What can be done with it has changed too.
    location.reload();
  });
  at.textContent = at.dataset.liveSays;
}

// Put the new contents of the part in the place of the old ones; what is open stays open, and the focus stays where it is.
async function fetchPart() {
  let answer;
  try {
    answer = await fetch(location.href, { headers: { accept: "text/html" } });
  } catch {
    return; // The server restarts: the next event asks again.
  }
  if (!answer.ok || answer.redirected) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("[data-live-part]");
  if (!fresh) return;
  const open = [...part.querySelectorAll("details")].map((one) => one.open);
  [...fresh.querySelectorAll("details")].forEach((one, n) => {
    one.open = open[n] ?? false;
  });
  const focused = focusable().indexOf(document.activeElement);
  part.replaceChildren(...fresh.childNodes);
  if (focused >= 0) focusable()[focused]?.focus({ preventScroll: true });
}

function focusable() {
  return [...part.querySelectorAll("a[href], button, summary, [tabindex='0']")];
}
