// Fills the page again every few seconds with the numbers of status.json, and keeps those of the last minutes
// for the plots, in this tab. All texts go into the page as textContent: none is read as HTML.
"use strict";

const INTERVAL = 2; // seconds between two answers
const WINDOW = 600; // seconds that the plots show at most
const SHORTEST = 60; // and at least
const GAP = 4 * INTERVAL; // seconds without an answer, after which a plot has a gap
const KEY = `poollife ${location.pathname}`;
const SERIES = ["out", "idle", "limit", "waiting"];

const find = (selector, within = document) => within.querySelector(selector);
const findAll = (selector, within = document) => [...within.querySelectorAll(selector)];

// Sets the text of an element only if it is another one, so that what a reader has selected stays selected.
function write(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

// As duration() in causes.py.
function duration(seconds) {
  if (seconds < 10) return `${(Math.floor(seconds * 10) / 10).toFixed(1)} s`;
  for (const [most, unit, name] of [[120, 1, "s"], [7200, 60, "min"], [172800, 3600, "h"]])
    if (seconds < most) return `${Math.floor(seconds / unit)} ${name}`;
  return `${Math.floor(seconds / 86400)} d`;
}

function format(value, kind) {
  if (value === null) return "-";
  return kind === "duration" ? duration(value) : String(value);
}

// --- the history ---------------------------------------------------------------------------------------------

// Each sample: the time, and by alias the numbers of SERIES.
let past = load();

function load() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) || [];
  } catch {
    return []; // storage is switched off, or something else is in it
  }
}

function remember(status) {
  const numbers = status.aliases.map((pool) => [pool.alias, SERIES.map((name) => pool[name])]);
  past = past.filter(([at]) => at > status.at - WINDOW && at < status.at);
  past.push([status.at, Object.fromEntries(numbers)]);
  try {
    sessionStorage.setItem(KEY, JSON.stringify(past));
  } catch {
    // The plots then begin again when the page is loaded again.
  }
}

// --- the plots -----------------------------------------------------------------------------------------------

// The samples of one alias, in runs without a gap. A sample lasts until the next one.
function runsOf(alias, now) {
  const runs = [];
  let last = -Infinity;
  for (const [at, numbers] of past) {
    if (!(alias in numbers)) continue;
    if (at - last > GAP) runs.push([]);
    const [out, idle, limit, waiting] = numbers[alias];
    runs.at(-1).push({ at, out, sessions: out + idle, full: Math.max(limit ?? 0, out + idle), limit, waiting });
    last = at;
  }
  for (const run of runs) run.push({ ...run.at(-1), at: Math.min(run.at(-1).at + INTERVAL, now) });
  return runs;
}

function draw(pool, now) {
  const figure = find(".plot", section(pool.alias));
  figure.hidden = false;
  const svg = find("svg", figure);
  const { width, height } = svg.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const runs = runsOf(pool.alias, now);
  const samples = runs.flat();
  const span = Math.max(SHORTEST, now - samples[0].at);
  const most = Math.max(1, ...samples.map((each) => each.full + each.waiting));
  const x = (at) => (width * (1 - (now - at) / span)).toFixed(1);
  const y = (number) => (1 + (height - 1) * (1 - number / most)).toFixed(1);

  const steps = (run, value) => run.map((each, n) => `${n ? `H${x(each.at)}` : ""}V${y(value(each))}`).join("");
  const area = (lower, upper) =>
    runs
      .map((run) => {
        const below = run.toReversed().slice(1);
        const back = below.map((each) => `V${y(lower(each))}H${x(each.at)}`).join("");
        return `M${x(run[0].at)} ${y(lower(run[0]))}${steps(run, upper)}${back}Z`;
      })
      .join("");
  const line = runs
    .filter((run) => run[0].limit !== null)
    .map((run) => `M${x(run[0].at)} ${y(run[0].limit)}${steps(run, (each) => each.limit ?? 0)}`)
    .join("");
  const paths = {
    out: area(() => 0, (each) => each.out),
    idle: area((each) => each.out, (each) => each.sessions),
    room: area(() => 0, (each) => each.full),
    waiting: area((each) => each.full, (each) => each.full + each.waiting),
    limit: line,
  };
  for (const [name, path] of Object.entries(paths)) find(`path.${name}`, svg).setAttribute("d", path);

  const peak = (value) => Math.max(...samples.map(value));
  const spanText = duration(span);
  svg.setAttribute(
    "aria-label",
    `The last ${spanText}: at most ${peak((each) => each.out)} out and ${peak((each) => each.waiting)} waiting`,
  );
  write(find(".most", figure), most);
  write(find(".from", figure), `${spanText} ago`);
}

// --- the page ------------------------------------------------------------------------------------------------

const section = (alias) => findAll(".pool").find((each) => each.dataset.alias === alias);

function showPool(pool) {
  const card = section(pool.alias);
  card.dataset.level = pool.level;
  for (const element of findAll("[data-field]", card)) {
    const value = pool[element.dataset.field];
    write(element, value === null ? "none" : value);
  }
  for (const part of findAll("[data-part]", card)) {
    const [start, width] = pool.bar[part.dataset.part];
    part.setAttribute("x", `${start}%`);
    part.setAttribute("width", `${width}%`);
  }
}

function showTable(part, rows) {
  const headings = findAll("th", part);
  const body = find("tbody", part);
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((row, number) => {
    const line = body.rows[number] ?? body.insertRow();
    headings.forEach(({ dataset }, column) => {
      const cell = line.cells[column] ?? line.insertCell();
      cell.className = dataset.kind;
      write(cell, format(row[dataset.key], dataset.kind));
    });
  });
  for (const each of findAll(".scroll, .hint", part)) each.hidden = !rows.length;
  const empty = find(".empty", part);
  if (empty) empty.hidden = rows.length > 0;
  else part.hidden = !rows.length;
}

function show(status) {
  const known = findAll(".pool").map((each) => each.dataset.alias);
  const now = status.aliases.map((pool) => pool.alias);
  if (known.join("\n") !== now.join("\n") || Boolean(find("#no-board")) !== Boolean(status.no_board)) {
    location.reload();
    return;
  }
  status.aliases.forEach(showPool);
  status.aliases.forEach((pool) => draw(pool, status.at));
  findAll("[data-rows]").forEach((part) => showTable(part, status[part.dataset.rows]));
  // For readers that can't see the page: only what has changed.
  write(find("#changes"), status.aliases.map((pool) => `${pool.alias}: ${pool.word}`).join(", "));
  const worst = ["bad", "busy"].map((level) => status.aliases.find((pool) => pool.level === level)).find(Boolean);
  document.title = `${worst ? `${worst.alias} ${worst.word} - ` : ""}Connection pools of ${status.host}`;
  write(find("#news"), new Date(status.at * 1000).toLocaleTimeString());
}

const pause = find("#pause");
let latest = null;

async function ask() {
  const answer = await fetch("status.json", { cache: "no-store" });
  if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
  const status = await answer.json();
  remember(status);
  latest = status;
  // What is being read or copied stays as it is; the plots miss nothing.
  if (pause.getAttribute("aria-pressed") === "true" || !getSelection().isCollapsed) return;
  show(status);
}

async function go() {
  try {
    await ask();
    document.body.classList.remove("old");
  } catch (error) {
    document.body.classList.add("old");
    const since = latest ? ` since ${new Date(latest.at * 1000).toLocaleTimeString()}` : "";
    write(find("#news"), `No news${since}: ${error.message}`);
  }
  setTimeout(go, INTERVAL * 1000);
}

pause.hidden = false;
pause.addEventListener("click", () => {
  const paused = pause.getAttribute("aria-pressed") !== "true";
  pause.setAttribute("aria-pressed", paused);
  if (!paused && latest) show(latest);
});
addEventListener("resize", () => latest?.aliases.filter((pool) => section(pool.alias)).forEach((pool) => draw(pool, latest.at)));
go();
