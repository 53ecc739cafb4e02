"use strict";
// The clips of a page. All texts are read at once. A clip is built when it is near the window and removed when it is not.
(() => {
  const NAME = 0, HREF = 1, START = 2, END = 3, STATUS = 4, ERROR = 5, CAPTIONS = 6, NUMBERS = 7, HEARD = 8, SEEN = 9,
    CURVES = 10, LOOKED = 11, PICTURES = 12, OTHER = 13;
  const BLOCK = 20, PAGE = 10000, GUESS = 200; // clips built together, clips of one page, estimated height of a clip
  const FORMULA = /^[=+\-@|\t\r\n]/, UNSEEN = /^[\s\p{Cc}\p{Cf}]+/u;
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufeff]/g;
  const SVG = "http://www.w3.org/2000/svg";
  const $ = (id) => document.getElementById(id);

  function make(tag, look, ...children) {
    const element = document.createElement(tag);
    if (look) element.className = look;
    element.append(...children);
    return element;
  }

  // ---- text and files

  const shown = (text) => text.replace(HIDDEN, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
  const shortened = (text) => (text.length > 56 ? text.slice(0, 27) + "…" + text.slice(-27) : text);
  const number = (value, digits) => (value === null || value === undefined ? "" : value.toFixed(digits));

  function cell(value) { // RFC 4180; text that a spreadsheet would run as a formula gets an apostrophe
    if (typeof value === "number") return String(value);
    let text = String(value ?? "");
    if (FORMULA.test(text) || FORMULA.test(text.replace(UNSEEN, "").normalize("NFKC"))) text = "'" + text;
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  }

  const csv = (lines) => lines.map((line) => line.map(cell).join(",") + "\r\n").join("");

  function download(text, name) {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
    link.download = name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 80) + ".csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  for (const button of document.querySelectorAll(".save-table")) {
    button.addEventListener("click", () => {
      const table = button.parentElement.parentElement.querySelector("table");
      const plain = (text) => (text !== "" && isFinite(text) ? Number(text) : text);
      download(csv([...table.rows].map((row) => [...row.cells].map((c) => plain(c.title || c.textContent)))), button.dataset.name);
    });
  }

  const ready = () => { document.documentElement.dataset.ready = Math.round(performance.now()); }; // ms since navigation
  if (!$("head")) return ready();

  // ---- data

  const head = JSON.parse($("head").textContent);
  const rows = [];
  for (const script of document.querySelectorAll("script.rows")) {
    for (const row of JSON.parse(script.textContent)) rows.push(row);
    script.remove();
  }
  const counts = new Map(); // clips by status
  for (const row of rows) counts.set(row[STATUS], (counts.get(row[STATUS]) ?? 0) + 1);
  const pieces = new Map();

  function pictures(index) { // [frame strip, spectrogram, copy for the player]
    const given = rows[index][PICTURES];
    if (given !== 1) return given || ["", "", ""];
    const piece = Math.floor(index / head.pictures);
    if (!pieces.has(piece)) {
      if (pieces.size > 20) pieces.delete(pieces.keys().next().value);
      pieces.set(piece, JSON.parse(document.querySelector("script.p" + piece).textContent));
    }
    return pieces.get(piece)[index % head.pictures];
  }

  const words = new Array(rows.length);
  function wordsOf(index) {
    const row = rows[index];
    words[index] ??= [row[NAME], ...row[CAPTIONS], row[ERROR], row[STATUS], ...row[HEARD].map((t) => t[0]),
      ...row[SEEN].map((t) => t[0])].join("\n").toLowerCase();
    return words[index];
  }

  // ---- one clip

  function tags(list, what) {
    const items = list.map(([name, share]) => {
      const item = make("li", "", shown(name), make("i", "", share.toFixed(2)));
      item.dir = "auto";
      return item;
    });
    return make("ul", "tags", make("li", "what", what), ...items);
  }

  function curves(row) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 260 40"); // 1 is at 3, 0 at 37
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", "gate and entropy over time");
    svg.setAttribute("preserveAspectRatio", "none");
    const names = [];
    row[CURVES].forEach((values, which) => {
      if (!values.some((v) => v !== null)) return;
      names.push(make("b", which ? "second" : "", which ? "entropy, 0 to 1" : "gate, 0 to 1"));
      const line = document.createElementNS(SVG, "polyline");
      const step = 260 / values.length;
      const points = values.flatMap((v, i) => v === null ? [] : [[i * step, v], [(i + 1) * step, v]]);
      line.setAttribute("points", points.map(([x, v]) => x.toFixed(1) + "," + (37 - v * 34).toFixed(1)).join(" "));
      line.setAttribute("class", "line s" + which);
      svg.append(line);
    });
    return names.length ? [svg, make("p", "curves", ...names)] : [];
  }

  function picture(url, look, about) {
    const image = make("img", look);
    image.loading = "lazy";
    image.decoding = "async";
    image.alt = about;
    image.width = 260;
    image.height = 65;
    image.src = url;
    image.addEventListener("error", () => image.replaceWith(make("div", "nothing", about + " cannot be shown")));
    return image;
  }

  function look(index) {
    const row = rows[index], [strip, spectrogram] = pictures(index), box = make("div", "look");
    if (strip) box.append(picture(strip, "strip", "frames"));
    if (spectrogram) box.append(make("div", "sounds", picture(spectrogram, "spectrogram", "spectrogram of the sound")));
    if (!strip && !spectrogram) box.append(make("div", "nothing", row[STATUS] === "failed" ? "could not be read" : "no pictures"));
    if (row[CURVES].length) box.append(...curves(row));
    const other = head.other && row[OTHER] !== null ? pictures(row[OTHER])[head.other === "frames" ? 0 : 1] : "";
    if (other) {
      const link = make("a", "", "clip " + (row[OTHER] + 1));
      link.href = "#clip-" + (row[OTHER] + 1);
      box.append(make("p", "from", head.other === "frames" ? "the other picture, of " : "the other sound, of ", link),
        picture(other, "strip other", head.other === "frames" ? "frames of the other clip" : "spectrogram of the other clip"));
    }
    return box;
  }

  let playing = null; // { index, player }

  function play(index) {
    const box = element(index)?.querySelector(".look"), button = element(index)?.querySelector(".play");
    if (!button) return;
    const old = box.querySelector("video");
    if (old) return old.paused ? void old.play().catch(() => {}) : old.pause();
    if (playing) playing.player.pause();
    const row = rows[index], copy = pictures(index)[2], player = make("video", row[STATUS] === "audio-only" ? "sound" : "");
    const start = copy ? 0 : row[START] ?? 0, length = row[END] === null ? Infinity : row[END] - (row[START] ?? 0);
    player.controls = true;
    player.preload = "metadata";
    player.setAttribute("aria-label", shown(row[NAME]));
    player.src = copy || row[HREF] + (row[START] === null ? "" : "#t=" + row[START] + "," + row[END]);
    const cursor = make("div", "cursor");
    player.addEventListener("timeupdate", () => {
      const share = (player.currentTime - start) / length;
      cursor.hidden = !(share >= 0 && share <= 1);
      cursor.style.left = share * 100 + "%";
    });
    player.addEventListener("error", () => {
      button.remove();
      player.replaceWith(make("div", "nothing", "cannot be played: the file is gone, or of a kind that this browser does not know"));
    });
    const still = box.querySelector(".strip:not(.other)") ?? box.querySelector(".nothing");
    if (still) { still.hidden = true; still.after(player); } else box.prepend(player);
    player.addEventListener("loadedmetadata", () => { // a sound file: its picture, from another file, stays
      if (player.videoWidth) return;
      player.className = "sound";
      if (still?.classList.contains("strip")) still.hidden = false;
    });
    box.querySelector(".sounds")?.append(cursor);
    player.addEventListener("play", () => { button.textContent = "Pause"; });
    player.addEventListener("pause", () => { button.textContent = "Play"; });
    playing = { index, player };
    player.play().catch(() => {});
  }

  function numbersOf(row, which) { // of one caption, or of the whole clip
    const numbers = make("dl", "numbers");
    head.numbers.forEach(({ name, digits, caption, label }, i) => {
      if (caption !== which || row[NUMBERS][i] === null) return;
      numbers.append(make("div", "", make("dt", "", label || name), make("dd", "", number(row[NUMBERS][i], digits))));
    });
    return numbers;
  }

  const seconds = (value) => (value === null ? "?" : String(Math.round(value * 1000) / 1000));

  function build(place) {
    const index = view[place], row = rows[index], clip = make("article", "clip"), text = make("div", "text");
    clip.id = "clip-" + (index + 1);
    clip.tabIndex = -1;
    clip.setAttribute("aria-posinset", place + 1);
    clip.setAttribute("aria-setsize", view.length);
    clip.setAttribute("aria-label", "Clip " + (index + 1) + ": " + (shown(row[CAPTIONS][0]) || row[STATUS]));
    const several = head.captions.length > 1, captions = make("div", several ? "captions" : "");
    row[CAPTIONS].forEach((caption, which) => {
      if (!caption && !several) return;
      const line = make("div", "caption"), reference = several && head.captions[which].startsWith("reference");
      if (several) {
        const title = make("small", "", shortened(head.captions[which]));
        title.title = head.captions[which];
        line.append(title);
      }
      const words = make("bdi", reference ? "reference" : "", shown(caption) || "—");
      words.dir = "auto";
      const cell = make("div", "", words);
      if (several) cell.append(numbersOf(row, which));
      line.append(cell);
      captions.append(line);
    });
    text.append(captions);
    if (row[ERROR]) {
      const error = make("p", "error", shown(row[ERROR]));
      error.dir = "auto";
      text.append(error);
    }
    const link = make("a", "", "#" + (index + 1));
    link.href = "#" + clip.id;
    const file = make(row[HREF] ? "a" : "bdi", "file", shown(row[NAME]));
    file.dir = "auto";
    file.id = clip.id + "-file";
    if (row[HREF]) { file.href = row[HREF]; file.target = "_blank"; file.rel = "noreferrer noopener"; }
    const line = make("div", "name", link, file);
    if (counts.size > 1 || row[STATUS] !== "ok") link.after(make("span", "status " + row[STATUS], row[STATUS]));
    if (row[START] !== null) line.append(make("span", "", seconds(row[START]) + "–" + seconds(row[END]) + " s"));
    if (pictures(index)[2] || (row[HREF] && !/^https?:/.test(row[HREF]))) { // a web address is only a link: the page makes no requests
      const button = make("button", "play", "Play");
      button.type = "button";
      button.setAttribute("aria-describedby", clip.id + "-file");
      button.addEventListener("click", () => play(index));
      line.append(button);
    }
    several ? text.prepend(line) : text.append(line);
    if (row[HEARD].length) text.append(tags(row[HEARD], "heard"));
    if (row[SEEN].length) text.append(tags(row[SEEN], "seen"));
    if (row[LOOKED].length) text.append(tags(row[LOOKED], "from the picture"));
    const numbers = numbersOf(row, null);
    if (numbers.childElementCount) text.append(numbers);
    clip.append(look(index), text);
    clip.addEventListener("focusin", () => mark(place, false));
    return clip;
  }

  // ---- the list: blocks of clips, of which those near the window are built

  const list = $("list");
  list.classList.toggle("plain", rows.every((row) => !row[PICTURES] && !row[HREF] && !row[CURVES].length)); // nothing to look at
  let view = rows.map((_, i) => i), page = 0, current = -1, blocks = [];

  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) isIntersecting ? fill(target) : empty(target);
  }, { rootMargin: "1200px 0px" });

  function fill(block) {
    if (block.childElementCount) return;
    const first = Number(block.dataset.first), last = Math.min(first + BLOCK, view.length, (page + 1) * PAGE);
    for (let place = first; place < last; place++) block.append(build(place));
    block.style.height = "";
    const marked = current >= 0 ? element(view[current]) : null;
    if (marked) marked.classList.add("current");
  }

  function empty(block) {
    if (!block.childElementCount || block.contains(document.activeElement) || block.contains(playing?.player ?? null)) return;
    block.style.height = block.offsetHeight + "px";
    block.replaceChildren();
  }

  function draw() {
    watcher.disconnect();
    const first = page * PAGE, last = Math.min(view.length, first + PAGE), made = document.createDocumentFragment();
    blocks = [];
    for (let place = first; place < last; place += BLOCK) {
      const block = make("div", "block");
      block.dataset.first = place;
      block.style.height = Math.min(BLOCK, last - place) * GUESS + "px";
      blocks.push(block);
      made.append(block);
    }
    if (!view.length) made.append(make("p", "empty", rows.length ? "No clip matches these filters." : "There are no clips in this result."));
    list.replaceChildren(made);
    blocks.forEach((block, i) => { if (i < 1) fill(block); watcher.observe(block); });
    $("pager").hidden = view.length <= PAGE;
    $("where").textContent = "page " + (page + 1) + " of " + Math.max(1, Math.ceil(view.length / PAGE));
    $("before").disabled = page === 0;
    $("after").disabled = (page + 1) * PAGE >= view.length;
  }

  const element = (index) => document.getElementById("clip-" + (index + 1));

  function mark(place, go) { // makes a clip the current one; go: scrolls to it and focuses it
    element(view[current])?.classList.remove("current");
    current = place;
    if (go) {
      const there = Math.floor(place / PAGE);
      if (there !== page) { page = there; draw(); }
      fill(blocks[Math.floor((place - page * PAGE) / BLOCK)]);
    }
    const clip = element(view[place]);
    clip?.classList.add("current");
    if (go && clip) { clip.focus({ preventScroll: true }); clip.scrollIntoView({ block: "nearest" }); }
  }

  // ---- filters, order, output

  for (const [status, count] of counts) {
    const box = make("input");
    box.type = "checkbox";
    box.checked = box.defaultChecked = true;
    box.value = status;
    $("statuses").append(make("label", "", box, shown(status) + " (" + count.toLocaleString("en") + ")"));
  }
  $("statuses").hidden = counts.size < 2;

  const keys = [["order", null], ["file", (r) => r[NAME].toLowerCase()], ["length", (r) => (r[END] === null ? null : r[END] - r[START])],
    ["status", (r) => r[STATUS]], ...head.captions.map((name, i) => [name, (r) => r[CAPTIONS][i].toLowerCase()]),
    ...head.numbers.map(({ name }, i) => [name, (r) => r[NUMBERS][i]])];
  keys.forEach(([name], i) => $("sort").append(new Option(name, i, name === head.sort, name === head.sort)));
  let falling = head.sort !== "";
  const direction = () => { $("order").setAttribute("aria-pressed", falling); };

  function update() {
    const wanted = $("text").value.toLowerCase().split(/\s+/).filter(Boolean);
    const off = new Set([...$("statuses").querySelectorAll("input")].filter((box) => !box.checked).map((box) => box.value));
    const which = Number($("number").value), least = $("least").value, most = $("most").value;
    const limited = least !== "" || most !== "";
    view = [];
    for (let i = 0; i < rows.length; i++) {
      const row = rows[i], value = row[NUMBERS][which] ?? null;
      if (off.has(row[STATUS])) continue;
      if (limited && (value === null || (least !== "" && value < Number(least)) || (most !== "" && value > Number(most)))) continue;
      if (wanted.length && !wanted.every((word) => wordsOf(i).includes(word))) continue;
      view.push(i);
    }
    const key = keys[Number($("sort").value)][1];
    if (key) {
      const of = new Map(view.map((i) => [i, key(rows[i])]));
      const way = falling ? -1 : 1;
      view.sort((a, b) => { // clips without the number come last in both orders
        const x = of.get(a), y = of.get(b);
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return x < y ? -way : x > y ? way : a - b;
      });
    } else if (falling) view.reverse();
    const total = rows.length.toLocaleString("en");
    $("shown").textContent = view.length === rows.length ? total + (rows.length === 1 ? " clip" : " clips") : view.length.toLocaleString("en") + " of " + total + " clips";
    page = 0;
    current = -1;
    draw();
  }

  function table() {
    const titles = ["clip", "file", "start", "end", ...head.captions, ...head.numbers.map(({ name }) => name), "heard", "seen", "status", "error"];
    const names = (list) => list.map(([name, share]) => name + " " + share.toFixed(2)).join("; ");
    return csv([titles, ...view.map((i) => {
      const row = rows[i];
      return [i + 1, row[NAME], row[START], row[END], ...row[CAPTIONS], ...row[NUMBERS], names(row[HEARD]), names(row[SEEN]), row[STATUS], row[ERROR]];
    })]);
  }

  async function copy() {
    const text = table();
    try {
      await navigator.clipboard.writeText(text);
    } catch { // some browsers forbid this for pages opened from a file
      const area = make("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    $("copy").textContent = "Copied";
    setTimeout(() => { $("copy").textContent = "Copy as CSV"; }, 1500);
  }

  let later = 0;
  const soon = () => { clearTimeout(later); later = setTimeout(update, 120); };
  const tools = $("tools");
  tools.addEventListener("input", (event) => { if (event.target.type !== "checkbox" && event.target.tagName !== "SELECT") soon(); });
  tools.addEventListener("change", update);
  tools.addEventListener("submit", (event) => { event.preventDefault(); update(); });
  tools.addEventListener("reset", () => { falling = head.sort !== ""; direction(); setTimeout(update, 0); });
  $("order").addEventListener("click", () => { falling = !falling; direction(); update(); });
  $("copy").addEventListener("click", copy);
  $("save").addEventListener("click", () => download(table(), document.title));
  for (const [id, step] of [["before", -1], ["after", 1]]) {
    $(id).addEventListener("click", () => { page += step; current = -1; draw(); $("clips").scrollIntoView(); });
  }

  function follow() { // #clip-17: shows the clip, and resets the filters if they hide it
    const index = Number(/^#clip-(\d+)$/.exec(location.hash)?.[1] ?? 0) - 1;
    if (index < 0 || index >= rows.length) return;
    if (!view.includes(index)) { tools.reset(); setTimeout(follow, 1); return; }
    mark(view.indexOf(index), true);
    element(index)?.scrollIntoView({ block: "start" });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const on = document.activeElement, inText = on && /^(INPUT|SELECT|TEXTAREA)$/.test(on.tagName);
    if (event.key === "Escape" && inText) { on.blur(); return; }
    if (inText) return;
    if (event.key === "/") { event.preventDefault(); $("text").focus(); $("text").select(); }
    else if (event.key === "j" || event.key === "k") {
      if (!view.length) return;
      event.preventDefault();
      mark(Math.max(0, Math.min(view.length - 1, current < 0 ? page * PAGE : current + (event.key === "j" ? 1 : -1))), true);
    } else if (event.key === " " && current >= 0 && !/^(BUTTON|SUMMARY|VIDEO|A)$/.test(on?.tagName ?? "")) {
      event.preventDefault();
      play(view[current]);
    }
  });

  direction();
  update();
  follow();
  window.addEventListener("hashchange", follow);
  ready();
})();
