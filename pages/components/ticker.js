// Asks its part of the page to refresh, but only while nothing else is going on: not in a hidden tab, not while a person is
// clicking or typing, not while the page is still answering, not behind an open dialog. (Streamlit's own run_every has no such
// manners: a tick that is sent while a click opens another page is answered for the page that was left, and parts of the new one
// vanish.) Two parts never ask at once: Streamlit sends what comes in one turn of the browser's loop for the first part only.
const tickers = new WeakMap();
const POLL_MS = 100, CALM_MS = 1000, TURN_MS = 400;
const shared = (window.groupscopeTicks ??= listen());

function listen() {
  const seen = { touched: -CALM_MS, asking: false };
  for (const kind of ["pointerdown", "keydown"]) window.addEventListener(kind, () => (seen.touched = performance.now()), { capture: true });
  return seen;
}

function calm(element, now) {
  const state = document.querySelector("[data-test-script-state]")?.dataset.testScriptState ?? "notRunning";
  const dialog = document.querySelector('[data-testid="stDialog"]');
  const inSight = !document.hidden && (!dialog || dialog.contains(element));
  return inSight && state === "notRunning" && !shared.asking && now - shared.touched > CALM_MS;
}

function poll(ticker, element) {
  const now = performance.now();
  if (now - ticker.ticked < ticker.every_ms || !calm(element, now)) return;
  ticker.ticked = now;
  shared.asking = true;
  ticker.trigger("tick", now);
  setTimeout(() => (shared.asking = false), TURN_MS);
}

export default function ({ data, parentElement, setTriggerValue }) {
  const ticker = tickers.get(parentElement) ?? { ticked: performance.now() };
  tickers.set(parentElement, ticker);
  Object.assign(ticker, { every_ms: data.every_ms, trigger: setTriggerValue });
  ticker.timer ??= setInterval(() => requestIdleCallback(() => poll(ticker, parentElement)), POLL_MS);
  return () => {
    clearInterval(ticker.timer);
    tickers.delete(parentElement);
  };
}
