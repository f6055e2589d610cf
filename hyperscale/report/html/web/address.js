// The view in the address: every control that is not at its default, so that a link shows the same view.

const kept = []; // {name, read: its value as text, "" for the default, apply: sets it}
const REDRAWS = []; // called when another address has set the controls

// The fragment is axis=tokens&method=dms+8%C3%97…; links of older pages are task/problem, and a section's name is none.
function readAddress() {
  const fragment = location.hash.slice(1);
  if (fragment.includes("=")) return new URLSearchParams(fragment);
  try {
    const text = decodeURIComponent(fragment);
    return new URLSearchParams(text.includes("/") ? { problem: text } : {});
  } catch {
    return new URLSearchParams(); // somebody's broken link: the page as it opens by itself
  }
}
const asked = readAddress();

function keep(name, read, apply) {
  kept.push({ name, read, apply });
  if (asked.has(name)) apply(asked.get(name));
}

// A select is kept by the text of its option, which outlives a change of the others; the first one is the default.
const keepSelect = (name, select) =>
  keep(
    name,
    () => (select.selectedIndex > 0 ? select.selectedOptions[0].textContent : ""),
    (text) => {
      const place = [...select.options].findIndex((option) => option.textContent === text);
      select.selectedIndex = Math.max(0, place);
    },
  );
const keepWords = (name, input) =>
  keep(
    name,
    () => input.value.trim(),
    (text) => (input.value = text),
  );
const keepBox = (name, box, usual = false) =>
  keep(
    name,
    () => (box.checked === usual ? "" : box.checked ? "yes" : "no"),
    (text) => (box.checked = text ? text === "yes" : usual),
  );

let saving = 0;
function save() {
  // Browsers refuse many changes of the address in a short time, as while somebody types.
  clearTimeout(saving);
  saving = setTimeout(() => {
    const values = kept.map(({ name, read }) => [name, read()]).filter(([, text]) => text);
    const fragment = new URLSearchParams(values).toString();
    if (fragment !== location.hash.slice(1))
      history.replaceState(null, "", fragment ? `#${fragment}` : location.pathname + location.search);
  }, 60);
}
addEventListener("change", save);
addEventListener("input", save);

// A link to another view of this page that somebody opens in the same tab.
addEventListener("hashchange", () => {
  if (byId(location.hash.slice(1))) return; // a section's
  const values = readAddress();
  for (const { name, apply } of kept) apply(values.get(name) ?? "");
  changed();
  REDRAWS.forEach((redraw) => redraw());
});
