// The log's page: says whether the log only grew since this browser's last visit.

import { canVerify } from "./bytes.js";
import { APPENDED, BROKEN, FIRST, forget, SAME, UNREADABLE, witness } from "./log.js";
import { checkpointText } from "./note.js";

const place = document.querySelector("[data-log-witness]");

if (place) await visit();

async function visit() {
  if (!(await canVerify())) {
    say("This browser cannot check it: it offers no Ed25519, or this page came without TLS.");
    return;
  }
  say("Checking …");
  try {
    const served = {
      note: await text("/log/checkpoint"),
      key: await text("/.well-known/tunewarden-log-key"),
      handOvers: await bytes("/log/hand-overs"),
    };
    const readTile = async (path) => bytes(`/log/tile/${path}`);
    show(await witness(localStorage, served, readTile));
  } catch (error) {
    say(`Nothing is known: ${error.message}. The last checkpoint stays kept.`, "bad");
  }
}

function show({ found, reason, before, now }) {
  if (found === FIRST) say(`This is the first visit of this browser: it keeps the checkpoint of ${now.size} entries.`);
  if (found === SAME) say(`Consistent: the log is as this browser saw it, with ${now.size} entries.`, "fine");
  if (found === APPENDED) {
    const added = now.size - before.size;
    say(`Consistent: the log was only appended to, by ${added}, since this browser saw ${before.size} entries.`, "fine");
  }
  if (found === UNREADABLE) {
    say(`${reason} So nothing is known of what became of the log since.`, "bad");
    offerToForget();
  }
  if (found !== BROKEN) return;
  say(`${reason} Keep both checkpoints: they are the proof. Ask whoever runs this server.`, "bad");
  for (const [name, checkpoint] of [["This browser saw", before], ["The server shows now", now]]) {
    if (!checkpoint) continue;
    const shown = Object.assign(document.createElement("pre"), { textContent: checkpointText(checkpoint), tabIndex: 0 });
    shown.setAttribute("role", "region");
    shown.setAttribute("aria-label", name);
    place.append(Object.assign(document.createElement("p"), { textContent: name }), shown);
  }
  offerToForget();
}

function offerToForget() {
  const button = Object.assign(document.createElement("button"), {
    className: "quiet",
    textContent: "Forget what this browser saw",
  });
  button.addEventListener("click", () => {
    forget(localStorage);
    location.replace(location.pathname + location.search);
  });
  place.append(button);
}

function say(message, kind = "") {
  const status = place.querySelector("[role=status]");
  status.textContent = message;
  status.className = `verdict ${kind}`.trim();
}

async function bytes(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`the server answered ${answer.status} to ${address}`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function text(address) {
  return new TextDecoder().decode(await bytes(address));
}
