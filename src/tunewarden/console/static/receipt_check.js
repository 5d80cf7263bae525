// "Verify in this browser": the form of each section with `data-receipt-check`, which names the receipt's address, or
// is empty for a receipt that is chosen or dropped. Everything is shown as text, never as markup.

import { canVerify } from "./bytes.js";
import { parseChain, verifyInChain } from "./key_chain.js";
import { parseLogKey } from "./note.js";
import { isReceipt, MAX_RECEIPT_BYTES, ReceiptError, STEPS, subjectOf } from "./receipt.js";

const LOG_KEY = "/.well-known/tunewarden-log-key";
const HAND_OVERS = "/log/hand-overs";
const OTHER_KEY =
  "Your copy of the log's key does not prove this receipt: the copy has a mistake or is another log's, or the receipt is.";

for (const section of document.querySelectorAll("[data-receipt-check]")) enhance(section);

async function enhance(section) {
  const say = status(section);
  if (!(await canVerify())) {
    say("This browser cannot check it here: it offers no Ed25519, or this page came without TLS. Use the command.");
    return;
  }
  const address = section.dataset.receiptCheck;
  const form = element("form", { className: "stack" });
  const file = address ? null : picker(form);
  const key = keyField(form);
  form.append(element("p", {}, element("button", { textContent: "Verify in this browser" })));
  const steps = element("ul", { className: "checks", hidden: true });
  section.append(form, steps, say.place);
  const check = async (bytes) => {
    say("Verifying …");
    steps.hidden = true;
    const ownKey = key.value.trim();
    const obstacle = await obstacleOf(bytes, ownKey);
    if (obstacle) {
      say(`Nothing was checked: ${obstacle}`, "bad");
      return;
    }
    try {
      const proven = await verifyInChain(bytes, await trustedChain(ownKey));
      show(steps, null);
      say(sentence(proven, ownKey !== ""), "fine");
    } catch (error) {
      if (!(error instanceof ReceiptError)) {
        say(`Nothing was checked: ${error.message}`, "bad");
        return;
      }
      show(steps, error.step);
      const said = ownKey && error.step === "key" ? OTHER_KEY : "This receipt is not valid.";
      say(`${said} ${error.message}`, "bad");
    }
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await check(address ? await fetched(address) : await read(file.files[0]));
    } catch (error) {
      say(`Nothing was checked: ${error.message}`, "bad");
    }
  });
  if (file) takeDrops(section, async (dropped) => check(await read(dropped)));
}

// Why nothing can be checked, though nothing is wrong with any receipt; null if there is no such reason.
async function obstacleOf(bytes, ownKey) {
  if (!isReceipt(bytes)) return "this is no receipt. A receipt is the file that a deletion's page offers.";
  if (!ownKey) return null;
  try {
    await parseLogKey(ownKey);
    return null;
  } catch (error) {
    return `your copy of the log's key cannot be read: ${error.message}. Paste it whole, or leave it empty.`;
  }
}

// The keys that lead from the one that is trusted to the newest. Without an own copy these are all that the server shows.
async function trustedChain(ownKey) {
  const handOvers = await fetched(HAND_OVERS);
  if (ownKey) return parseChain(handOvers, ownKey);
  const chain = await parseChain(handOvers, await text(LOG_KEY));
  return parseChain(handOvers, null).catch(() => chain);
}

function picker(form) {
  const file = element("input", { type: "file", id: "receipt-file", accept: ".json,application/json", required: true });
  const label = element("label", { htmlFor: file.id, textContent: "Receipt: choose one, or drop it here" });
  form.append(element("p", { className: "field" }, label, file));
  return file;
}

function keyField(form) {
  const key = element("textarea", { id: "own-log-key", rows: 3, spellcheck: false });
  key.setAttribute("aria-describedby", "own-log-key-hint");
  const label = element("label", { htmlFor: key.id, textContent: "Your own copy of the log's key (PEM or vkey)" });
  const hint = element("p", {
    id: "own-log-key-hint",
    className: "hint",
    textContent: "Kept from earlier, it is what makes this a check. Left empty, the key that this server shows is taken.",
  });
  form.append(element("p", { className: "field" }, label, key), hint);
  return key;
}

function takeDrops(section, take) {
  section.addEventListener("dragover", (event) => {
    event.preventDefault();
    section.classList.add("dropping");
  });
  section.addEventListener("dragleave", () => section.classList.remove("dropping"));
  section.addEventListener("drop", async (event) => {
    event.preventDefault();
    section.classList.remove("dropping");
    const [dropped] = event.dataTransfer.files;
    if (dropped) await take(dropped);
  });
}

// The steps up to the one that failed; all of them if none did.
function show(list, failed) {
  const items = [];
  for (const [name, said] of Object.entries(STEPS)) {
    const isBad = name === failed;
    items.push(element("li", { className: isBad ? "bad" : "fine", textContent: `${isBad ? "✗" : "✓"} ${said}` }));
    if (isBad) break;
  }
  list.replaceChildren(...items);
  list.hidden = false;
}

function sentence({ statement, disclosure, index, checkpoint, keyId }, hasOwnKey) {
  const of = hasOwnKey ? "your copy of the log's key" : "the key that this server shows";
  return (
    `Valid: ${subjectOf({ statement, disclosure })}, entry ${index} of ${checkpoint.size} of the log ${checkpoint.origin}, ` +
    `by ${of}, sha256:${keyId}`
  );
}

function status(section) {
  const place = element("p", { className: "verdict" });
  place.setAttribute("role", "status");
  section.append(place);
  const say = (message, kind = "") => {
    place.textContent = message;
    place.className = `verdict ${kind}`.trim();
  };
  say.place = place;
  return say;
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

async function fetched(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function text(address) {
  return new TextDecoder().decode(await fetched(address));
}

async function read(file) {
  if (!file) throw new Error("no receipt was chosen");
  if (file.size > MAX_RECEIPT_BYTES) throw new ReceiptError("form", "It is too large for a receipt.");
  return new Uint8Array(await file.arrayBuffer());
}
