// What the page does with a script; without it every view is a document with forms.
//
// Rule 1: the server renders. When something has changed, the same address is asked
//         again, and what differs is taken over in place: focus and selection stay,
//         and the document is never larger than the server's.
// Rule 2: at most one refresh a second, fewer where the gateway takes long for one or has
//         many requests (the figures on top stay live), none while the page is hidden;
//         without the stream of events, one in five seconds.
// Rule 3: what a reader of the screen hears is one sentence, four times a minute at most.

const REFRESH_MS = 1000;
const REST_FACTOR = 25; // of the time that the last refresh took, until the next
const REST_MS_A_RATE = 60; // for each request a second that the gateway has
const MAX_REST_MS = 15000;
const ANNOUNCE_MS = 15000;
const TICK_MS = 1000;
const LOST_AFTER_MS = 3000;
const LOST_REFRESH_MS = 5000;

const main = document.querySelector("main");

// --- times ---------------------------------------------------------------------------

const sameDay = (a, b) => a.toDateString() === b.toDateString();

function localTime(element) {
  const when = new Date(element.dateTime);
  if (Number.isNaN(when.getTime())) return;
  const style = element.dataset.style;
  const clock = { hour: "2-digit", minute: "2-digit", hour12: false };
  if (style !== "hour") clock.second = "2-digit";
  const time = when.toLocaleTimeString(undefined, clock);
  const now = new Date();
  const date = { month: "short", day: "numeric" };
  if (when.getFullYear() !== now.getFullYear()) date.year = "numeric";
  const day = when.toLocaleDateString(undefined, date);
  const text = sameDay(when, now) ? time : `${day}, ${time}`;
  if (element.textContent !== text) element.textContent = text;
}

function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

// The server's clock rules: a laptop's may be wrong.
const skew = () => Date.now() / 1000 - Number(main.dataset.now || Date.now() / 1000);
let clockSkew = skew();

function tick() {
  const now = Date.now() / 1000 - clockSkew;
  for (const element of document.querySelectorAll("[data-since]"))
    setText(element, duration(now - Number(element.dataset.since)));
  for (const element of document.querySelectorAll("[data-until]"))
    setText(element, duration(Number(element.dataset.until) - now));
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function dress(root) {
  root.querySelectorAll("time[datetime]").forEach(localTime);
}

function addCopyButtons(root) {
  if (!navigator.clipboard) return;
  for (const element of root.querySelectorAll("[data-copy]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(element.textContent.trim());
      button.textContent = "Copied";
    });
    element.after(button);
  }
}

// --- taking over what has changed ---------------------------------------------------------

const keyOf = (node) => (node.nodeType === 1 ? node.dataset?.key || node.id || "" : "");

// Make *mine* like *theirs*; elements that stay, stay the same objects.
function takeOver(mine, theirs) {
  const kept = new Map();
  for (const child of mine.children) if (keyOf(child)) kept.set(keyOf(child), child);
  let at = mine.firstChild;
  for (const next of [...theirs.childNodes]) {
    const key = keyOf(next);
    let match = key ? kept.get(key) : at && !keyOf(at) && alike(at, next) ? at : null;
    if (match && !alike(match, next)) match = null;
    if (!match) {
      mine.insertBefore(document.importNode(next, true), at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else mine.insertBefore(match, at);
    renew(match, next);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName;

function renew(mine, theirs) {
  if (mine.nodeType !== 1) {
    if (mine.nodeValue !== theirs.nodeValue) mine.nodeValue = theirs.nodeValue;
    return;
  }
  if (mine.isEqualNode(theirs)) return;
  const ours = mine.nodeName === "DETAILS" ? ["open"] : [];
  for (const { name } of [...mine.attributes])
    if (!theirs.hasAttribute(name) && !ours.includes(name)) mine.removeAttribute(name);
  for (const { name, value } of theirs.attributes)
    if (mine.getAttribute(name) !== value) mine.setAttribute(name, value);
  if (mine.nodeName === "INPUT" || mine.nodeName === "SELECT") return;
  takeOver(mine, theirs);
}

// --- live ----------------------------------------------------------------------------------

const live = document.querySelector("[data-stream]");
const speech = document.getElementById("speech");
let dirty = false;
let refreshing = false;
let restUntil = 0;
let spokenAt = 0;
let requestsPerS = 0;

function show(state) {
  for (const element of document.querySelectorAll(".live"))
    element.hidden = element.dataset.state !== state;
}

async function refresh() {
  const began = performance.now();
  if (!dirty || refreshing || document.hidden || began < restUntil) return;
  dirty = false;
  refreshing = true;
  try {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (response.redirected && new URL(response.url).pathname === "/login") {
      location.reload();
      return;
    }
    if (!response.ok) return;
    const text = await response.text();
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const theirs = fresh.querySelector("main");
    main.dataset.now = theirs.dataset.now;
    clockSkew = skew();
    for (const region of main.querySelectorAll("[data-live]")) {
      const next = theirs.querySelector(`[data-live="${region.dataset.live}"]`);
      if (!next) continue;
      dress(next); // else every time differs
      renew(region, next);
    }
    tick();
    announce();
  } catch {
    dirty = true; // the gateway restarts, or the network is away: again at the next tick
  } finally {
    refreshing = false;
    const now = performance.now();
    const rest = Math.max(REST_FACTOR * (now - began), REST_MS_A_RATE * requestsPerS);
    restUntil = now + Math.min(MAX_REST_MS, rest);
  }
}

function announce() {
  const said = main.querySelector("[data-say]")?.dataset.say;
  const now = Date.now();
  if (!said || said === speech.textContent || now - spokenAt < ANNOUNCE_MS) return;
  spokenAt = now;
  speech.textContent = said;
}

const wanted = (event) => {
  const only = main.dataset.only;
  if (!only) return true;
  try {
    const id = JSON.parse(event.data).request_id;
    return !id || id === only;
  } catch {
    return true;
  }
};

const FIGURES = {
  number: (value) => Math.round(value).toLocaleString("en").replaceAll(",", "\u202f"),
  rate: (value) => (value < 10 ? value.toFixed(1) : String(Math.round(value))),
};

function showRates(event) {
  let rates;
  try {
    rates = JSON.parse(event.data);
  } catch {
    return;
  }
  requestsPerS = rates.requests_per_s || 0;
  for (const element of document.querySelectorAll("[data-rate]")) {
    const value = rates[element.dataset.rate];
    if (typeof value === "number")
      setText(element, FIGURES[element.dataset.format || "number"](value));
  }
}

let stream = null;

function follow() {
  stream = new EventSource(live.dataset.stream);
  let lost = 0;
  const touched = (event) => {
    if (wanted(event)) dirty = true;
  };
  stream.addEventListener("open", () => {
    clearTimeout(lost);
    lost = 0;
    show("live");
    dirty = true;
  });
  stream.addEventListener("error", () => {
    if (!lost) lost = setTimeout(() => show("lost"), LOST_AFTER_MS);
    // A refusal is final for the browser; it may be a log-out, which a refresh shows.
    if (stream.readyState === EventSource.CLOSED) {
      dirty = true;
      setTimeout(follow, LOST_REFRESH_MS);
    }
  });
  for (const kind of [...(main.dataset.on || "").split(" "), "snapshot"])
    if (kind) stream.addEventListener(kind, touched);
  stream.addEventListener("rates", showRates);
}

dress(document);
addCopyButtons(document);
tick();
setInterval(tick, TICK_MS);
document.querySelector("[data-focus]")?.focus();
if (live && main.dataset.on) {
  follow();
  setInterval(refresh, REFRESH_MS);
  document.addEventListener("visibilitychange", refresh);
  setInterval(() => {
    if (stream.readyState !== EventSource.OPEN) dirty = true;
  }, LOST_REFRESH_MS);
}
if (main.dataset.every) {
  setInterval(() => {
    dirty = true;
    refresh();
  }, Number(main.dataset.every) * 1000);
}
