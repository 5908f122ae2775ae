// The page of `semvlp serve`: it sends forms, and draws what comes back. All that comes back or was
// typed becomes text (textContent) or attributes of elements made here, never markup.

const SVG = "http://www.w3.org/2000/svg";
const MEAN = "mean of all";
const MAX_MEGABYTES = 32;
const PER_PAGE = 24;
const LABELS = { question: "Question", statement: "Statement", captions: "Captions, one a line" };

const at = (id) => document.getElementById(id);
const form = at("form");
let checkpoints = [];
let slots = []; // {file or id, name, stage} of each photograph
let shown = null; // the reply that is drawn
let pending = null; // the AbortController of the question that is under way
let start = 0; // the first photograph of the store that is listed

const chosen = () => checkpoints.find((one) => one.name === at("checkpoint").value);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

async function request(path, options = {}) {
  const response = await fetch(path, options);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error ?? `the server answered ${response.status}`);
  return body;
}

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
  const label = make("label", {}, `${name} (choose, or drop one here) `, input);
  const figure = make("figure", { className: "slot" }, stage, label, caption);
  const slot = { name, index, stage, caption, figure, given: null };
  input.addEventListener("change", () => input.files[0] && give(slot, { file: input.files[0] }));
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
  slot.stage.classList.add("blank");
  if (!given.file && !given.picture) return;
  given.url ??= given.file ? URL.createObjectURL(given.file) : pictureOf(given.id, "large");
  const image = make("img", { alt: `${slot.name}: ${name}` });
  // What the browser cannot draw is still sent: the server says whether it can be read.
  image.addEventListener("error", () => image.remove());
  image.addEventListener("load", () => slot.stage.classList.remove("blank"));
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
  at("words").replaceChildren();
  at("words-title").hidden = at("help").hidden = true;
  at("status").textContent = "Give a photograph and a text, then Ask.";
  slots.forEach((slot) => slot.stage.querySelector("svg")?.remove());
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
  at("words").replaceChildren(...reply.words.map(drawWord));
  at("words-title").hidden = at("help").hidden = false;
  reply.photos.forEach((photo, index) => drawRegions(slots[index], photo));
  rest();
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

function drawWord({ word }, index) {
  const button = make("button", { type: "button", textContent: word });
  const light = () => lightWord(index);
  for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, light);
  for (const event of ["pointerleave", "blur"]) button.addEventListener(event, rest);
  return button;
}

function drawRegions(slot, photo) {
  slot.stage.querySelector("svg")?.remove();
  const svg = shape("svg", {
    viewBox: `0 0 ${photo.width} ${photo.height}`,
    role: "group",
    "aria-label": `${slot.name}: ${photo.regions.length} regions; the arrow keys go from one to the next`,
  });
  slot.boxes = photo.regions.map((region, index) => drawBox(slot, region, index));
  // Small boxes lie above large ones, so that each can be pointed at.
  const area = ({ box: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0);
  const order = photo.regions.map((_, index) => index);
  order.sort((a, b) => area(photo.regions[b]) - area(photo.regions[a]));
  svg.append(...order.map((index) => slot.boxes[index]));
  slot.boxes[0]?.setAttribute("tabindex", "0");
  slot.stage.append(svg);
}

function drawBox(slot, region, index) {
  const [x0, y0, x1, y1] = region.box;
  const label = `${region.label}, ${Math.round(100 * region.confidence)} %`;
  const size = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
  const box = shape("rect", { ...size, tabindex: "-1", role: "img", "aria-label": label });
  const light = () => lightRegion(slot, index, label);
  for (const event of ["pointerenter", "focus"]) box.addEventListener(event, light);
  for (const event of ["pointerleave", "blur"]) box.addEventListener(event, rest);
  box.addEventListener("click", () => move(slot, index));
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    move(slot, (index + step + slot.boxes.length) % slot.boxes.length);
  });
  return box;
}

// One box of a photograph is a stop of the Tab key; the arrow keys move it.
function move(slot, index) {
  slot.boxes.forEach((box, other) => box.setAttribute("tabindex", other === index ? "0" : "-1"));
  slot.boxes[index].focus();
}

// ---- what attends to what

const relative = (values) => {
  const most = Math.max(...values, 0) || 1;
  return values.map((value) => value / most);
};

function share(elements, values) {
  relative(values).forEach((value, index) => elements[index].style.setProperty("--share", value));
}

function lightWord(index) {
  rest();
  shown.words[index].regions.forEach((values, photo) => share(slots[photo].boxes, values));
  share(at("words").children, shown.words.map((_, other) => Number(other === index)));
}

function lightRegion(slot, index, label) {
  rest();
  slot.boxes[index].classList.add("lit");
  slot.caption.textContent = label;
  share(at("words").children, shown.photos[slot.index].regions[index].words);
}

// Nothing is pointed at: the boxes show what the answer was read from.
function rest() {
  if (!shown) return;
  slots.forEach((slot, index) => {
    share(slot.boxes, shown.photos[index].regions.map((region) => region.looked_at));
    slot.boxes.forEach((box) => box.classList.remove("lit"));
    slot.caption.textContent = slot.given.file?.name ?? slot.given.id;
  });
  share(at("words").children, shown.words.map(() => 0));
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
