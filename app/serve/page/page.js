// The page of `semvlp serve`: it sends forms, and draws what comes back. All that comes back or was
// typed becomes text (textContent) or attributes of elements made here, never markup.

import { drawAttention, forget, setRatio, showConfident } from "./attention.js";
import { at, make, request } from "./elements.js";

const MEAN = "mean of all";
const MAX_MEGABYTES = 32;
const PER_PAGE = 24;
const LABELS = { question: "Question", statement: "Statement", captions: "Captions, one a line" };

const form = at("form");
let checkpoints = [];
let slots = []; // of each photograph: its name, its elements, and what was given: {file} or {id}
let shown = null; // the reply that is drawn
let pending = null; // the AbortController of the question that is under way
let start = 0; // the first photograph of the store that is listed

const chosen = () => checkpoints.find((one) => one.name === at("checkpoint").value);

// ---- photographs

function makeSlots() {
  const count = chosen().photos;
  const names = count === 1 ? ["Photograph"] : ["Left photograph", "Right photograph"];
  const before = slots;
  slots = names.map((name, index) => makeSlot(name, index));
  at("slots").replaceChildren(...slots.map((slot) => slot.figure));
  slots.forEach((slot, index) => before[index]?.given && fill(slot, before[index].given));
}

function makeSlot(name, index) {
  const input = make("input", { type: "file", accept: "image/*" });
  const stage = make("div", { className: "stage" });
  const caption = make("div", { className: "caption note" });
  const label = make("label", { className: "choose" }, `${name}: choose one, or drop it here`, input);
  const figure = make("figure", { className: "slot" }, stage, label, caption);
  const slot = { name, index, stage, caption, figure, given: null };
  input.addEventListener("change", () => {
    if (input.files[0]) give(slot, { file: input.files[0] });
    input.value = ""; // the same file may be chosen again
  });
  figure.addEventListener("dragover", (event) => {
    event.preventDefault();
    figure.classList.add("over");
  });
  figure.addEventListener("dragleave", () => figure.classList.remove("over"));
  figure.addEventListener("drop", (event) => {
    event.preventDefault();
    figure.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) give(slot, { file });
  });
  return slot;
}

function give(slot, given) {
  fail("");
  if (given.file && given.file.size > MAX_MEGABYTES * 2 ** 20) {
    fail(`${given.file.name} has more than ${MAX_MEGABYTES} MiB; make it smaller`);
    return;
  }
  clear();
  fill(slot, given);
}

function fill(slot, given) {
  slot.given = given;
  const name = given.file?.name ?? given.id;
  slot.caption.textContent = name;
  slot.stage.replaceChildren();
  if (!given.file && !given.picture) return;
  given.url ??= given.file ? URL.createObjectURL(given.file) : pictureOf(given.id, "large");
  const image = make("img", { alt: `${slot.name}: ${name}` });
  // What the browser cannot draw is still sent: the server says whether it can be read.
  image.addEventListener("error", () => image.remove());
  image.addEventListener("load", () => setRatio(slot, image.naturalWidth, image.naturalHeight));
  image.src = given.url;
  slot.stage.prepend(image);
}

const pictureOf = (id, size) => `photos/${encodeURIComponent(id)}?size=${size}`;

// ---- questions

async function ask(text = null) {
  const checkpoint = chosen();
  const missing = slots.find((slot) => !slot.given);
  if (missing) return fail(`${missing.name} is missing: choose one, or drop it on the page.`);
  pending?.abort();
  const mine = (pending = new AbortController());
  fail("");
  at("status").textContent = "Looking ...";
  try {
    const lines = at("text").value.split("\n").filter((line) => line.trim());
    const ranked = checkpoint.text === "captions" && (await send("match", lines, mine.signal));
    const best = ranked && ranked.matches.reduce((a, b) => (b.probability > a.probability ? b : a));
    const reply = await send("ask", [text ?? best?.text ?? at("text").value], mine.signal);
    if (mine === pending) draw(reply, ranked?.matches);
  } catch (error) {
    if (error.name === "AbortError" || mine !== pending) return;
    at("status").textContent = "";
    fail(error.message);
  }
}

function send(path, texts, signal) {
  const body = new FormData();
  for (const { given } of slots) {
    given.file ? body.append("photo", given.file) : body.append("photo", given.id);
  }
  texts.forEach((text) => body.append("text", text));
  body.append("checkpoint", chosen().name);
  for (const name of ["mode", "layer", "head"]) body.append(name, form.elements[name].value);
  return request(path, { method: "POST", body, signal });
}

function fail(message) {
  at("error").textContent = message;
}

function clear() {
  pending?.abort();
  shown = null;
  at("answers").replaceChildren();
  at("status").textContent = "Give a photograph and a text, then Ask.";
  forget();
}

// ---- answers

function draw(reply, matches) {
  shown = reply;
  const passes = reply.mode === "both" ? "both passes" : `the ${reply.mode}-stream pass`;
  at("status").textContent = `By ${passes}. The stronger a box, the more the network looks at it.`;
  const answers = matches
    ? matches.map(({ text, probability }) => ({ answer: text, probability, text }))
    : reply.answers;
  answers.sort((a, b) => b.probability - a.probability);
  at("answers").replaceChildren(...answers.map(drawAnswer));
  drawAttention(slots, reply);
}

function drawAnswer({ answer, probability, text }) {
  const percent = `${(100 * probability).toFixed(1)} %`;
  const fill = make("i");
  fill.style.width = percent.replace(" ", "");
  const item = make("li", {}, make("b", { textContent: answer }), make("span", { textContent: percent }));
  item.append(make("div", { className: "bar" }, fill));
  if (text) {
    const button = make("button", { type: "button", textContent: "Show its words" });
    button.addEventListener("click", () => ask(text));
    item.append(button);
  }
  return item;
}

// ---- the store

async function listPhotos() {
  const listed = await request(`photos?start=${start}&count=${PER_PAGE}`);
  const last = start + listed.photos.length;
  at("store-status").textContent = `${start + 1} to ${last} of ${listed.total}. Choose one to ask about it.`;
  showPhotos(listed.photos);
  at("previous").disabled = start === 0;
  at("next").disabled = last >= listed.total;
}

async function search(event) {
  event.preventDefault();
  const body = new FormData(at("search"));
  at("store-status").textContent = "Searching ...";
  const { photos } = await request("search", { method: "POST", body });
  at("store-status").textContent = `${photos.length} photographs, those that fit best first.`;
  showPhotos(photos);
  at("previous").disabled = at("next").disabled = true;
}

function showPhotos(photos) {
  at("photos").replaceChildren(...photos.map((photo) => make("li", {}, drawPhoto(photo))));
}

function drawPhoto({ id, picture, probability }) {
  const button = make("button", { type: "button" });
  if (picture) button.append(make("img", { src: pictureOf(id, "small"), alt: "", loading: "lazy" }));
  const chance = probability === undefined ? "" : ` ${(100 * probability).toFixed(1)} %`;
  button.append(`${id}${chance}`);
  button.addEventListener("click", () => {
    const slot = slots.find((one) => !one.given) ?? slots.at(-1);
    give(slot, { id, picture });
    at("text").focus();
  });
  return button;
}

// ---- the beginning

function options(select, values) {
  select.replaceChildren(...values.map(([value, text]) => make("option", { value, textContent: text })));
}

function choose() {
  const checkpoint = chosen();
  clear();
  makeSlots();
  at("text-label").textContent = LABELS[checkpoint.text];
  const numbered = (values) => [["", MEAN], ...values.map((value) => [value, value])];
  options(at("layer"), numbered(checkpoint.layers));
  options(at("head"), numbered(Array.from({ length: checkpoint.heads }, (_, index) => index + 1)));
}

const reporting = (action) => (event) => Promise.resolve(action(event)).catch((error) => fail(error.message));

async function begin() {
  // The token is in a cookie now; it need not stay in the address.
  history.replaceState(null, "", location.pathname);
  const about = await request("about");
  checkpoints = about.checkpoints;
  options(at("checkpoint"), checkpoints.map(({ name, task }) => [name, `${name} (${task})`]));
  form.elements.mode.value = checkpoints[0].mode;
  choose();
  at("store").hidden = !about.photos;
  at("search").hidden = !about.search;
  if (about.photos) await listPhotos();
}

at("checkpoint").addEventListener("change", choose);
at("least").addEventListener("input", showConfident);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
at("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  if (chosen().text === "captions") return;
  event.preventDefault();
  form.requestSubmit();
});
form.addEventListener("change", ({ target }) => {
  if (shown && ["mode", "layer", "head"].includes(target.name)) ask(shown.text);
});
// A photograph that misses its place must not replace the page.
for (const event of ["dragover", "drop"]) addEventListener(event, (drop) => drop.preventDefault());
at("search").addEventListener("submit", reporting(search));
at("all").addEventListener("click", reporting(listPhotos));
for (const [id, step] of [["previous", -PER_PAGE], ["next", PER_PAGE]]) {
  at(id).addEventListener("click", reporting(() => {
    start = Math.max(0, start + step);
    return listPhotos();
  }));
}
reporting(begin)();
