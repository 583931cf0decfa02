// Asks its part of the page to refresh, but only while nothing else is going on: not in a hidden tab, not while a person is
// clicking or typing, and not while the page is still answering. (Streamlit's own run_every has no such manners: a tick that is
// sent while a click opens another page is answered for the page that was left, and parts of the new one vanish.)
const tickers = new WeakMap();
const CALM_MS = 1000;

if (!window.groupscopeTouched) {
  window.groupscopeTouched = { at: -CALM_MS };
  for (const kind of ["pointerdown", "keydown"]) window.addEventListener(kind, () => (window.groupscopeTouched.at = performance.now()), { capture: true });
}

function calm() {
  const state = document.querySelector("[data-test-script-state]")?.dataset.testScriptState ?? "notRunning";
  return !document.hidden && state === "notRunning" && performance.now() - window.groupscopeTouched.at > CALM_MS;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const ticker = tickers.get(parentElement) ?? {};
  tickers.set(parentElement, ticker);
  ticker.tick = () => calm() && setTriggerValue("tick", performance.now());
  ticker.timer ??= setInterval(() => ticker.tick(), data.every_ms);
  return () => {
    clearInterval(ticker.timer);
    tickers.delete(parentElement);
  };
}
