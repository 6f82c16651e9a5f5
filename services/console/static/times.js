// Shows points in time in the zone of this computer, or as distances, by the preference of the page.
const mode = document.documentElement.dataset.time;
const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const zone = new Intl.DateTimeFormat(undefined, { timeZoneName: "short" });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];

function zoneName(at) {
  return zone.formatToParts(at).find((part) => part.type === "timeZoneName")?.value ?? "";
}

function distance(at) {
  const seconds = (at - Date.now()) / 1000;
  for (const [unit, size] of UNITS) {
    if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
  }
  return relative.format(Math.trunc(seconds), "second");
}

// The form of the preferences starts with the zone of this computer.
export function offerZone() {
  const field = document.querySelector("input#zone");
  if (field !== null && field.value === "") {
    field.value = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
  }
}

export function showTimes(root) {
  if (mode !== "local" && mode !== "relative") return;
  for (const element of root.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.valueOf())) continue;
    element.title ||= element.textContent; // at first, htmx reports the body, which is done already
    element.textContent = mode === "local" ? `${local.format(at)} ${zoneName(at)}` : distance(at);
  }
}
