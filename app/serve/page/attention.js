// Words and regions, and which of them attend to which: pointing at one lights the others.

import { at, make, shape } from "./elements.js";

let slots = []; // the photographs of the page
let reply = null; // what the server said of them

export function drawAttention(photographs, given) {
  [slots, reply] = [photographs, given];
  at("words").replaceChildren(...reply.words.map(drawWord));
  at("words-title").hidden = at("help").hidden = false;
  reply.photos.forEach((photo, index) => drawRegions(slots[index], photo));
  showConfident();
  rest();
}

export function forget() {
  reply = null;
  at("words").replaceChildren();
  at("words-title").hidden = at("help").hidden = true;
  slots.forEach((slot) => slot.stage.querySelector("svg")?.remove());
}

export function setRatio({ stage }, width, height) {
  stage.style.setProperty("--ratio", width / height);
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
  setRatio(slot, photo.width, photo.height);
  slot.stage.append(svg);
}

// Regions that the detector hardly believes in are many; the network sees them all the same.
export function showConfident() {
  const least = Number(at("least").value);
  at("least-text").textContent = `${least} %`;
  if (!reply) return;
  slots.forEach((slot, photo) => {
    const { regions } = reply.photos[photo];
    slot.boxes.forEach((box, index) => {
      box.classList.toggle("doubtful", 100 * regions[index].confidence < least);
      box.setAttribute("tabindex", "-1");
    });
    confident(slot)[0]?.setAttribute("tabindex", "0");
  });
}

const confident = ({ boxes }) => boxes.filter((box) => !box.classList.contains("doubtful"));

function drawBox(slot, region, index) {
  const [x0, y0, x1, y1] = region.box;
  const label = `${region.label}, ${Math.round(100 * region.confidence)} %`;
  const size = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
  const box = shape("rect", { ...size, tabindex: "-1", role: "img", "aria-label": label });
  const light = () => lightRegion(slot, index, label);
  for (const event of ["pointerenter", "focus"]) box.addEventListener(event, light);
  for (const event of ["pointerleave", "blur"]) box.addEventListener(event, rest);
  box.addEventListener("click", () => move(slot, box));
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const shown = confident(slot);
    move(slot, shown.at((shown.indexOf(box) + step) % shown.length));
  });
  return box;
}

// One box of a photograph is a stop of the Tab key; the arrow keys move it.
function move(slot, box) {
  slot.boxes.forEach((other) => other.setAttribute("tabindex", other === box ? "0" : "-1"));
  box.focus();
}

// ---- what attends to what

// From the least to the most: what all have alike says nothing.
function relative(values) {
  const least = Math.min(...values);
  const most = Math.max(...values);
  return values.map((value) => (most > least ? (value - least) / (most - least) : Math.sign(value)));
}

function share(elements, values) {
  relative(values).forEach((value, index) => elements[index].style.setProperty("--share", value));
}

function lightWord(index) {
  rest();
  reply.words[index].regions.forEach((values, photo) => share(slots[photo].boxes, values));
  share(at("words").children, reply.words.map((_, other) => Number(other === index)));
}

function lightRegion(slot, index, label) {
  rest();
  slot.boxes[index].classList.add("lit");
  slot.caption.textContent = label;
  share(at("words").children, reply.photos[slot.index].regions[index].words);
}

// Nothing is pointed at: the boxes show what the answer was read from.
function rest() {
  if (!reply) return;
  slots.forEach((slot, index) => {
    share(slot.boxes, reply.photos[index].regions.map((region) => region.looked_at));
    slot.boxes.forEach((box) => box.classList.remove("lit"));
    slot.caption.textContent = slot.given.file?.name ?? slot.given.id;
  });
  share(at("words").children, reply.words.map(() => 0));
}
