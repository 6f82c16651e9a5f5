// Live updates. Events hold ids and codes only. A page with `data-live` (`all`, or ids of connections;
// `data-live-types`: what their types start with) says how much is new and lets people choose when to see it: nothing
// moves under the pointer.
const POLL_MS = 30000;
const PATIENCE_MS = 10000; // shorter interruptions are not reported
const SAY_MS = 5000;

const region = document.querySelector("[data-live]");
const wanted = (region?.dataset.live ?? "").split(" ");
const types = (region?.dataset.liveTypes ?? "").split(" ");
const changed = new Set();
let source = null;
let last = "";
let isAway = false;
let isSignedOut = false;
let mayHaveChanged = false;
let shownText = "";
let bar = null;
let saysAt = 0;
let polling = 0;
let timer = 0;

export function followEvents() {
  if (region === null) return;
  shownText = textOf(region);
  bar = document.createElement("div");
  bar.className = "live";
  bar.setAttribute("role", "status");
  region.before(bar);
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  if (!document.hidden) open();
}

function open() {
  if (isSignedOut || source !== null) return;
  source = new EventSource(last === "" ? "/live" : `/live?after=${encodeURIComponent(last)}`);
  expectConnection();
  source.onmessage = (message) => take(message);
  source.addEventListener("reset", (message) => {
    remember(message);
    mayHaveChanged = true;
    say();
  });
  source.addEventListener("away", () => setAway(true));
  source.addEventListener("back", () => setAway(false));
  source.onopen = () => {
    stopTimer();
    setAway(false);
  };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) {
      close();
      setAway(true);
    } else {
      expectConnection();
    }
  };
}

// From the first failure on: the browser connects again every few seconds, and each of these may fail.
function expectConnection() {
  if (timer === 0) timer = setTimeout(() => setAway(true), PATIENCE_MS);
}

function stopTimer() {
  clearTimeout(timer);
  timer = 0;
}

function close() {
  stopTimer();
  source?.close();
  source = null;
  if (document.hidden) stopPolling();
}

function remember(message) {
  if (message.lastEventId) last = message.lastEventId;
}

function take(message) {
  remember(message);
  const event = JSON.parse(message.data);
  const isWanted = wanted[0] === "all" || wanted.includes(event.connection_id);
  if (!isWanted || !types.some((type) => event.type.startsWith(type))) return;
  changed.add(event.ref ?? event.connection_id);
  say();
}

function setAway(away) {
  if (away && !document.hidden && polling === 0) polling = setInterval(poll, POLL_MS);
  if (!away) stopPolling();
  if (away === isAway) return;
  isAway = away;
  say();
}

function stopPolling() {
  clearInterval(polling);
  polling = 0;
}

async function poll() {
  if (source === null) open();
  if (mayHaveChanged) return;
  let answer;
  try {
    answer = await fetch(location.href, { headers: { "X-AAM-Background": "1" }, cache: "no-store" });
  } catch {
    return; // the next one may succeed
  }
  if (answer.redirected && new URL(answer.url).pathname === "/login") {
    isSignedOut = true;
    close();
    stopPolling();
  } else if (answer.ok) {
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const newer = page.querySelector("[data-live]");
    mayHaveChanged = newer !== null && textOf(newer) !== shownText;
  }
  say();
}

function textOf(element) {
  return element.textContent.replace(/\s+/g, " ").trim();
}

// Says what is new, at most once in five seconds.
function say() {
  if (saysAt > Date.now()) return;
  const wait = Math.max(0, saysAt + SAY_MS - Date.now());
  saysAt = Date.now() + wait;
  setTimeout(show, wait);
}

function show() {
  const count = changed.size;
  const parts = [];
  if (isSignedOut) {
    parts.push("You are signed out.", link("Sign in", "/login"));
  } else if (count > 0 || mayHaveChanged) {
    parts.push(link(count > 0 ? `${count} new – show` : "Something has changed – show", location.href));
  }
  if (isAway && !isSignedOut) parts.push("Live updates are unavailable; this page checks for changes every 30 seconds.");
  bar.replaceChildren(...parts);
}

function link(text, href) {
  const made = document.createElement("a");
  made.className = "button";
  made.href = href;
  made.textContent = text;
  if (href === location.href) {
    made.addEventListener("click", (event) => {
      event.preventDefault();
      location.reload();
    });
  }
  return made;
}
