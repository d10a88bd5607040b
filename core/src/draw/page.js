"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const map = $("map"), details = $("details"), search = $("search");
  const data = JSON.parse($("data").textContent);
  const things = new Map(data.things.map((thing) => [thing.id, thing]));
  const wires = new Map(data.wires.map((wire) => [wire.id, wire]));
  const wiresOf = new Map(data.things.map((thing) => [thing.id, []]));
  for (const wire of data.wires) for (const end of wire.ends) wiresOf.get(end)?.push(wire);
  for (const thing of [...data.things, ...data.wires]) {
    const words = [thing.title];
    for (const [heading, rows] of thing.sections) {
      // Whoever looks for a member does not mean the bridge.
      if (heading !== "Members") for (const [key, value] of rows) words.push(key + " " + value);
    }
    thing.find = words.join("\n").toLowerCase();
  }

  // The part of the drawing that is seen: the viewBox.
  const whole = { w: map.viewBox.baseVal.width, h: map.viewBox.baseVal.height };
  let view = { x: 0, y: 0, w: whole.w, h: whole.h };
  const show = () => map.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
  const fitInto = (across) => {
    const box = map.getBoundingClientRect();
    const scale = Math.min(1.25, box.width / whole.w, across ? Infinity : box.height / whole.h) || 1;
    view = { w: box.width / scale, h: box.height / scale };
    view.x = (whole.w - view.w) / 2;
    view.y = Math.min(0, (whole.h - view.h) / 2);
    show();
  };
  const fit = () => fitInto(false);
  const zoom = (factor, at) => {
    const box = map.getBoundingClientRect();
    const scale = box.width / view.w * factor;
    if (scale < 0.05 || scale > 8) return;
    const px = at ? (at.x - box.left) / box.width : 0.5;
    const py = at ? (at.y - box.top) / box.height : 0.5;
    view.x += view.w * px * (1 - 1 / factor);
    view.y += view.h * py * (1 - 1 / factor);
    view.w /= factor;
    view.h /= factor;
    show();
  };
  const bringIntoView = (id) => {
    const box = $(id).getBBox();
    // The details cover the right side.
    const width = map.getBoundingClientRect().width;
    const clear = view.w * (width > 800 ? 1 - 390 / width : 1);
    // What is larger than the window stays where it is, and nothing moves further than it must.
    const shift = (from, size, start, room) =>
      size + 40 > room || (from >= start && from + size <= start + room) ? start
        : from < start ? from - 20 : from + size + 20 - room;
    view.x = shift(box.x, box.width, view.x, clear);
    view.y = shift(box.y, box.height, view.y, view.h);
    show();
  };
  map.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), { x: event.clientX, y: event.clientY });
  }, { passive: false });
  let drag = null;
  map.addEventListener("pointerdown", (event) => {
    if (event.button === 0) drag = { x: event.clientX, y: event.clientY, from: { ...view }, moved: false };
  });
  map.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
    if (!drag.moved && Math.hypot(dx, dy) < 4) return;
    if (!drag.moved) map.setPointerCapture(event.pointerId);
    drag.moved = true;
    map.classList.add("dragging");
    const box = map.getBoundingClientRect();
    view.x = drag.from.x - dx * view.w / box.width;
    view.y = drag.from.y - dy * view.h / box.height;
    show();
  });
  const drop = () => {
    map.classList.remove("dragging");
    // The click that ends a drag chooses nothing.
    setTimeout(() => { drag = null; });
  };
  map.addEventListener("pointerup", drop);
  map.addEventListener("pointercancel", drop);

  const group = (target) => target instanceof Element ? target.closest("#map g[id]") : null;
  const lit = new Set();
  const light = (ids) => {
    for (const id of lit) $(id).classList.remove("lit");
    lit.clear();
    for (const id of ids) { $(id).classList.add("lit"); lit.add(id); }
  };
  // What belongs to a wire or a card: end to end.
  const kin = (id) => {
    const wire = wires.get(id);
    if (wire) return [id, ...wire.ends];
    return [id, ...(wiresOf.get(id) || []).flatMap((wire) => id[0] === "l" ? [wire.id] : [wire.id, ...wire.ends])];
  };
  map.addEventListener("pointerover", (event) => {
    const under = group(event.target);
    light(under ? kin(under.id) : []);
  });
  map.addEventListener("pointerleave", () => light([]));

  let chosen = null, returnTo = null;
  const choose = (id) => {
    if (chosen) $(chosen).classList.remove("chosen");
    chosen = id;
    details.replaceChildren();
    details.hidden = !id;
    if (!id) { returnTo?.focus({ preventScroll: true }); return; }
    returnTo = $(id);
    returnTo.classList.add("chosen");
    const add = (to, tag, text) => {
      const element = document.createElement(tag);
      element.textContent = text;
      to.append(element);
      return element;
    };
    const thing = things.get(id) || wires.get(id);
    const close = add(details, "button", "✕");
    close.className = "close";
    close.setAttribute("aria-label", "Close");
    close.addEventListener("click", () => choose(null));
    add(details, "h2", thing.title);
    for (const [heading, rows] of thing.sections) {
      add(details, "h3", heading);
      const list = add(details, "dl", "");
      for (const [key, value] of rows) { add(list, "dt", key); add(list, "dd", value); }
    }
    details.scrollTop = 0;
  };
  map.addEventListener("click", (event) => {
    if (drag?.moved) return;
    const under = group(event.target);
    choose(under ? under.id : null);
    if (under && !wires.has(under.id)) bringIntoView(under.id);
  });
  for (const element of map.querySelectorAll("g.card, g.device, g.lane")) {
    element.setAttribute("tabindex", "0");
    element.setAttribute("role", "button");
    element.addEventListener("focus", () => {
      if (element.matches(":focus-visible")) { bringIntoView(element.id); light(kin(element.id)); }
    });
  }

  const lonely = $("lonely");
  const remember = () => {
    const state = new URLSearchParams();
    if (search.value) state.set("q", search.value);
    if (!lonely.checked) state.set("lonely", "0");
    history.replaceState(null, "", "#" + state);
  };
  const look = () => {
    const word = search.value.trim().toLowerCase();
    for (const element of map.querySelectorAll(".found, .hit-by-search")) element.classList.remove("found", "hit-by-search");
    map.classList.toggle("narrowed", word !== "");
    $("found").value = "";
    if (!word) return [];
    const mark = (id, ...classes) => $(id).classList.add(...classes);
    const found = data.things.filter((thing) => thing.find.includes(word));
    const cables = data.wires.filter((wire) => wire.find.includes(word));
    for (const thing of found) {
      mark(thing.id, "found", "hit-by-search");
      for (const wire of wiresOf.get(thing.id)) {
        mark(wire.id, "hit-by-search");
        for (const end of wire.ends) mark(end, "hit-by-search");
      }
    }
    for (const wire of cables) {
      mark(wire.id, "hit-by-search");
      for (const end of wire.ends) mark(end, "hit-by-search");
    }
    const count = found.length || cables.length;
    $("found").value = count === 0 ? "nothing found" : `${count} found`;
    return [...found.map((thing) => thing.id), ...cables.map((wire) => wire.id)];
  };
  search.addEventListener("input", () => { look(); remember(); });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const found = look();
    const next = found[(found.indexOf(chosen) + 1) % found.length];
    if (!next) return;
    const box = map.getBoundingClientRect(), at = $(next).getBBox();
    if (box.width / view.w < 0.7) {
      // From afar, come near enough to read.
      view = { w: box.width, h: box.height, x: at.x + at.width / 2 - box.width / 3, y: at.y + at.height / 2 - box.height / 2 };
    }
    bringIntoView(next);
    choose(next);
  });
  lonely.addEventListener("change", () => { map.classList.toggle("alone", !lonely.checked); remember(); });

  $("in").addEventListener("click", () => zoom(1.25));
  $("out").addEventListener("click", () => zoom(0.8));
  $("fit").addEventListener("click", fit);
  const move = (dx, dy) => { view.x += dx * view.w / 10; view.y += dy * view.h / 10; show(); };
  const keys = {
    "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), "0": fit,
    ArrowLeft: () => move(-1, 0), ArrowRight: () => move(1, 0), ArrowUp: () => move(0, -1), ArrowDown: () => move(0, 1),
    "/": () => search.focus(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      if (chosen) choose(null);
      else if (search.value) { search.value = ""; look(); remember(); }
      else search.blur();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement) return;
    if (details.contains(event.target) && event.key.startsWith("Arrow")) return;
    const under = group(event.target);
    if (under && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); choose(under.id); return; }
    const act = keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  window.addEventListener("resize", () => {
    const box = map.getBoundingClientRect();
    view.h = view.w * box.height / box.width;
    show();
  });

  const state = new URLSearchParams(location.hash.slice(1));
  search.value = state.get("q") || "";
  lonely.checked = state.get("lonely") !== "0";
  map.classList.toggle("alone", !lonely.checked);
  // As wide as the window: what does not fit below is a drag away, and can be read.
  fitInto(true);
  look();
})();
