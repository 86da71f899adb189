/* The page "Teach a network". Nothing is sent anywhere, and nothing heavy loads before the first picture.
   network.js has the frozen network, head.js what trains, pictures.js what happens to a file. */
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("teach-here");
  if (!root) return;
  const MOST_CLASSES = 6, MOST_PICTURES = 200, SLICE = 25; // the last in milliseconds between two looks at the reader
  const VIEWS = {
    features: { name: "features of the frozen network", short: "features" },
    pixels: { name: "raw pixels, no network", short: "raw pixels" },
    random: { name: "the same network with random weights", short: "random network" },
  };
  const folder = root.dataset.folder, finished = document.getElementById("teach-finished");
  const classes = [], boards = {}, asked = [];
  let view = "features", limit = Infinity, job = 0, started, head, latest, newSamples = [], nAdded = 0, hasOwn = false;
  const tally = { right: 0, of: 0 }; // of the new sample pictures
  const networks = {};

  // --- small tools ---
  const el = (tag, props = {}, ...kids) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(props)) {
      if (key.startsWith("aria") || key === "role") made.setAttribute(key.replace(/^aria(?=[A-Z])/, "aria-").toLowerCase(), value);
      else made[key] = value;
    }
    made.append(...kids);
    return made;
  };
  const button = (text, onclick, props = {}) => el("button", { type: "button", textContent: text, onclick, ...props });
  const picture = (p, size, alt, props = {}) => el("img", { src: p.url, alt, width: size, height: size, className: "dark-light", ...props });
  const pause = () => new Promise((done) => setTimeout(done));
  const percent = (p) => `${(100 * p).toFixed(p > 0.995 || p < 0.095 ? 1 : 0)} %`;
  const number = (n) => n.toLocaleString("en");
  const say = (text) => { status.textContent = text; };
  const complain = (text, place = problems) => place.append(el("p", {}, text));
  const script = (name) => new Promise((done, failed) => document.head.append(el("script", {
    src: folder + name, onload: done, onerror: () => failed(new Error(`the file ${name} is missing beside this page`)),
  })));

  // --- loading, at the first picture ---
  const start = () => (started ??= (async () => {
    say("Loading the network (4.7 MB, once) …");
    await pause();
    await Promise.all(["weights.js", "network.js", "head.js", "pictures.js"].map(script));
    say("The network looks at each picture …");
    networks.features = Network.load(TEACH_NETWORK);
    root.dataset.compiled = networks.features.isCompiled;
  })());
  const vector = (p, kind = view) => {
    if (!p.vectors[kind]) {
      networks[kind] ??= Network.load(TEACH_NETWORK, { random: true });
      p.vectors[kind] = networks[kind].features(p.rgba);
    }
    return p.vectors[kind];
  };

  // --- reading files, one after the other ---
  let queue = Promise.resolve(), nWaiting = 0;
  const add = (files, take, place) => {
    nWaiting++;
    queue = queue.then(() => readAll(files, take, place)).then(() => {
      root.dataset.added = ++nAdded;
      if (!--nWaiting) return train();
    });
    return queue;
  };
  const readAll = async (files, take, place = problems) => {
    for (const old of [problems, place]) old.replaceChildren();
    try {
      await start();
      progress.hidden = false;
      progress.max = files.length;
      for (const [i, [name, source]] of files.entries()) {
        progress.value = i;
        await pause();
        if (classes.flatMap((c) => c.pictures).length >= MOST_PICTURES) {
          complain(`This page stays quick with up to ${MOST_PICTURES} pictures. The others were left out.`, place);
          break;
        }
        try {
          const p = await Pictures.read(source, name), t = performance.now();
          p.vectors.features = networks.features.features(p.rgba);
          root.dataset.milliseconds = (performance.now() - t).toFixed(1);
          take({ ...p, name: name.replace(/\.\w+$/, "") });
        } catch (error) { complain(error.message, place); }
      }
    } catch (error) {
      started = undefined;
      complain(`It did not start: ${error.message}. Load the page again.`);
      say("");
    }
    progress.hidden = true;
  };
  const filesOf = (list) => [...list].map((file) => [file.name, file]);
  const onDrop = (node, take) => {
    node.addEventListener("dragover", (e) => { e.preventDefault(); node.classList.add("over"); });
    node.addEventListener("dragleave", () => node.classList.remove("over"));
    node.addEventListener("drop", (e) => {
      e.preventDefault();
      node.classList.remove("over");
      if (e.dataTransfer.files.length) take(filesOf(e.dataTransfer.files));
      else { problems.replaceChildren(); complain("That was no file. Save the picture first, then drop the file."); }
    });
  };
  // A file that misses its box would replace the page.
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (e) => e.preventDefault());
  const chooser = (label, take, multiple) => {
    const input = el("input", { type: "file", accept: "image/*", multiple });
    input.onchange = () => { take(filesOf(input.files)); input.value = ""; };
    return el("label", { className: "choose" }, label, input);
  };

  // --- the classes ---
  const addClass = (name) => {
    const c = { pictures: [], list: el("ul", { className: "pictures" }), name: () => input.value.trim() || name };
    const input = el("input", { value: name, ariaLabel: "Name of this class", onchange: () => train() });
    const remove = button("Remove class", () => {
      classes.splice(classes.indexOf(c), 1);
      c.box.remove();
      more.focus();
      renew();
    });
    c.take = (p) => {
      c.pictures.push(p);
      const cross = button("×", () => {
        const next = p.item.nextElementSibling ?? p.item.previousElementSibling;
        c.pictures.splice(c.pictures.indexOf(p), 1);
        p.item.remove();
        (next?.querySelector("button") ?? c.box.querySelector("input[type=file]")).focus();
        train();
      }, { ariaLabel: `Remove ${p.name}` });
      p.item = el("li", {}, (p.image = picture(p, 56, p.name)), cross);
      c.list.append(p.item);
    };
    const take = (files) => { hasOwn = true; add(files, c.take); };
    c.box = el("div", { className: "box", role: "group", ariaLabel: `Class ${classes.length + 1}` }, input, chooser("Choose pictures, or drop them here", take, true), c.list, remove);
    onDrop(c.box, take);
    classes.push(c);
    boxes.insertBefore(c.box, more);
    renew();
    return c;
  };
  const renew = () => {
    more.hidden = classes.length >= MOST_CLASSES;
    for (const c of classes) c.box.lastChild.hidden = classes.length < 3;
    if (started && !nWaiting) train();
  };

  // --- training, and judging each picture with a head that has not seen it ---
  const train = async () => {
    const mine = ++job, used = classes.filter((c) => c.pictures.length), n = used.reduce((sum, c) => sum + c.pictures.length, 0);
    for (const board of Object.values(boards)) if (board.of !== n) delete boards[board.view];
    const isEnough = used.length > 1 && used.every((c) => c.pictures.length > 1);
    result.hidden = !isEnough;
    if (finished) finished.hidden = n > 0;
    again.hidden = !n;
    if (!isEnough) {
      say(n ? "It takes two classes or more, with two pictures or more in each." : "");
      return;
    }
    const most = Math.max(...used.map((c) => c.pictures.length));
    slider.max = most;
    slider.value = Math.min(limit, most);
    sliderText.textContent = slider.value;
    const pictures = used.flatMap((c) => c.pictures), y = used.flatMap((c, k) => c.pictures.map(() => k));
    const rows = used.flatMap((c) => c.pictures.slice(0, slider.value)).map((p) => pictures.indexOf(p));
    const raw = [];
    if (!pictures.every((p) => p.vectors[view])) say("The untrained network looks at each picture …");
    for (const p of pictures) {
      if (!p.vectors[view]) { await pause(); if (mine !== job) return; }
      raw.push(vector(p));
    }
    const scale = view === "random" ? Head.standardiser(rows.map((i) => raw[i])) : (x) => x;
    const prepare = (p) => Head.unit(scale(vector(p)));
    const X = pictures.map(prepare), K = Head.products(X), t = performance.now();
    head = { ...Head.fit(K, y, used.length, rows), milliseconds: performance.now() - t, X, pictures, y, used, prepare };
    showParts();
    if (latest) tell(latest);
    const said = [];
    let last = performance.now();
    for (const i of pictures.keys()) {
      if (performance.now() - last > SLICE) {
        await pause();
        if (mine !== job) return;
        last = performance.now();
      }
      const fair = rows.includes(i) ? Head.fit(K, y, used.length, rows.filter((r) => r !== i)) : head;
      said.push(Head.largest(Head.predict(fair, K[i])));
    }
    showScore(said, K);
    say(`Trained on ${rows.length} pictures. Each named by a head that had not seen it: ${said.filter((k, i) => k === y[i]).length} of ${y.length} right. Nothing left this computer.`);
    root.dataset.trained = `${view} ${rows.length}`;
  };

  const showParts = () => {
    const weights = head.used.length * (head.X[0].length + 1), sees = {
      features: [`frozen network: ${number(networks.features.numbers)} numbers, none of them changes`, "1,280 features"],
      pixels: ["no network", "768 numbers: 16 × 16 pixels, three colours"],
      random: [`the same network untrained: ${number(networks.features.numbers)} random numbers, none of them changes`, "1,280 features"],
    }[view];
    parts.replaceChildren(...["a picture", ...sees].map((text) => el("li", {}, text)),
      el("li", { className: "trains" }, el("strong", {}, `head: ${number(weights)} weights`), `, trained in ${head.milliseconds.toFixed(0)} ms`));
    const { losses } = head, points = losses.map((l, i) => `${(200 * i / losses.length).toFixed(1)},${(38 - 36 * l / losses[0]).toFixed(1)}`);
    loss.innerHTML = `<svg viewBox="0 0 200 40" width="200" height="40" role="presentation"><polyline points="${points.join(" ")}" fill="none" stroke="currentColor" stroke-width="2"/></svg>`;
    loss.append(el("span", {}, `Loss on the training pictures: ${losses[0].toFixed(2)} before, ${losses.at(-1).toFixed(2)} after ${losses.length} steps.`));
  };

  const showScore = (said, K) => {
    const { y, pictures, used } = head, right = said.filter((k, i) => k === y[i]).length, wrong = [];
    const guess = Math.max(...used.map((c) => c.pictures.length));
    pictures.forEach((p, i) => {
      const is = said[i] === y[i];
      p.item.classList.toggle("wrong", !is);
      p.image.alt = is ? p.name : `${p.name}, taken for ${used[said[i]].name()}`;
      if (!is) wrong.push(el("li", {}, picture(p, 56, ""), `${p.name} (${used[y[i]].name()}) is taken for ${used[said[i]].name()}`));
    });
    boards[view] = { view, right, of: y.length, trainedOn: head.rows.length };
    score.replaceChildren(el("strong", {}, `${right} of ${y.length} right`), ` (${percent(right / y.length)}). Guessing the largest class: ${guess} of ${y.length}.`);
    board.tBodies[0].replaceChildren(...Object.entries(VIEWS).map(([key, { name }]) => {
      const b = boards[key];
      return el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, b ? `${b.right} of ${b.of}` : "not tried yet"), el("td", {}, b ? `${b.trainedOn}` : ""));
    }));
    const pairs = K.flatMap((line, i) => [...line.slice(0, i)].flatMap((v, j) => (v > 0.9995 && view === "features" ? [`${pictures[i].name} and ${pictures[j].name}`] : [])));
    mistakes.replaceChildren(el("p", {}, wrong.length ? "Wrong, and framed in red among the pictures above:" : "None is wrong."));
    if (wrong.length) mistakes.append(el("ul", {}, ...wrong));
    if (pairs.length) mistakes.append(el("p", {}, `The same picture twice: ${pairs.slice(0, 3).join(", ")}. Then leaving one out proves little.`));
  };

  // --- a new picture ---
  const tell = (p) => {
    latest = p;
    const { used, pictures, y } = head, own = head.prepare(p), line = head.X.map((x) => Head.dot(x, own)), probabilities = Head.predict(head, line);
    const best = Head.largest(probabilities), name = used[best].name(), sure = percent(probabilities[best]);
    const near = head.rows.slice().sort((a, b) => line[b] - line[a]).slice(0, 3);
    let verdict = "";
    if (p.kind) verdict = p.kind === "none" ? ` It is a ${p.name}: none of these kinds. The head has no word for that.` : ` It is a ${p.name}${p.kind === name ? ": right." : ` (${p.kind}): wrong${probabilities[best] > 0.7 ? ", and sure of it" : ""}.`}`;
    if (p.isNew && view === "features") {
      p.isNew = false;
      tally.of++;
      tally.right += p.kind === name;
    }
    if (p.kind && tally.of > 1) verdict += ` So far ${tally.right} of ${tally.of} new pictures were named rightly.`;
    answer.replaceChildren(picture(p, 112, p.name),
      el("div", { className: "shares" }, el("p", {}, "It says: ", el("strong", {}, `${name}, ${sure}.`), verdict),
        ...used.map((c, k) => el("label", {}, `${c.name()} ${percent(probabilities[k])}`, el("meter", { value: probabilities[k], max: 1 })))),
      el("figure", {}, el("figcaption", {}, "The three nearest training pictures"),
        ...near.map((i) => el("span", {}, picture(pictures[i], 64, `${pictures[i].name}, ${used[y[i]].name()}`), el("small", {}, used[y[i]].name())))));
    root.dataset.answer = name;
    if (view === "features") {
      const old = asked.findIndex((a) => a.picture === p.name);
      if (old >= 0) asked.splice(old, 1);
      asked.push({ picture: p.name, p });
    }
  };
  const ask = (files) => {
    latest = undefined; // an answer that stays would pass for the answer to this file
    answer.replaceChildren();
    return add(files.slice(0, 1), (p) => { latest = p; }, unread);
  };
  const askSample = () => {
    const [kind, name, data] = newSamples[0];
    newSamples.push(newSamples.shift());
    return add([[name, data]], (p) => { latest = { ...p, kind, name: name.replace(/-/g, " "), isNew: true }; }, unread);
  };

  // --- the samples: all of them, and the first new picture ---
  const useSamples = async () => {
    if (!mayClear()) return;
    sample.disabled = true;
    try {
      await script("samples.js");
    } catch (error) {
      complain(`It did not start: ${error.message}.`);
      return;
    }
    clear();
    for (const [kind, pictures] of Object.entries(TEACH_SAMPLES.train)) {
      const { take } = addClass(kind);
      add(pictures.map(([name, data]) => [name.replace(/-/g, " "), data]), take);
    }
    const kinds = Object.entries(TEACH_SAMPLES.new).sort(([a], [b]) => (a === "none") - (b === "none"));
    newSamples = [0, 1].flatMap((i) => kinds.flatMap(([kind, list]) => (list[i] ? [[kind, ...list[i]]] : [])));
    other.hidden = false;
    await askSample();
    result.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "nearest" });
  };
  const mayClear = () => !hasOwn || confirm("Your own pictures will be taken off this page. Go on?");
  const clear = () => {
    hasOwn = false;
    Object.assign(tally, { right: 0, of: 0 });
    for (const c of classes.splice(0)) c.box.remove();
    for (const key of Object.keys(boards)) delete boards[key];
    asked.length = 0;
    latest = undefined;
    limit = Infinity;
    answer.replaceChildren();
    for (const old of [problems, unread]) old.replaceChildren();
    other.hidden = true;
  };
  const startOver = () => {
    if (!mayClear()) return;
    clear();
    for (const name of ["first", "second", "third"]) addClass(name);
    sample.disabled = false;
    sample.focus();
  };

  // --- what was taught, as a file ---
  const download = () => {
    const { used, rows, y } = head, direction = (p) => Head.unit(vector(p, "features"));
    const X = head.pictures.map(direction), K = Head.products(X), trained = Head.fit(K, y, used.length, rows);
    const layer = Head.asLayer(trained, X), short = (v) => Number(v.toPrecision(7));
    const answers = asked.slice(-5).map(({ picture: name, p }) => ({
      picture: name, probabilities: Head.predict(trained, X.map((x) => Head.dot(x, direction(p)))).map(short),
    }));
    const content = {
      about: "A head taught in the browser, on the page 'Teach a network'. Chapter 1 loads it in Keras.",
      backbone: "efficientnet_lite0", image_size: networks.features.size,
      backbone_weights: "each convolution's kernel rounded to whole steps of max|kernel| / 127, one step for each output channel",
      normalisation: "l2", classes: used.map((c) => c.name()), n_pictures: used.map((_, k) => rows.filter((i) => y[i] === k).length),
      kernel: layer.kernel.map((row) => row.map(short)), bias: layer.bias.map(short), answers,
    };
    const link = el("a", { download: "taught_network.json", href: URL.createObjectURL(new Blob([JSON.stringify(content)], { type: "application/json" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  // --- the page ---
  const sample = button("Use the sample pictures", useSamples, { className: "main", id: "teach-sample" });
  const again = button("Start over", startOver, { hidden: true });
  const more = button("Add a class", () => addClass(`class ${classes.length + 1}`), { className: "more" });
  const boxes = el("div", { className: "boxes" }, more), status = el("p", { className: "status", role: "status" });
  const progress = el("progress", { hidden: true, ariaLabel: "Pictures read" }), problems = el("div", { className: "problems", role: "alert" });
  const parts = el("ol", { className: "parts" }), loss = el("p", { className: "loss" }), score = el("p", { className: "score" }), mistakes = el("div", { className: "mistakes" });
  const radio = ([value, { name }]) => el("label", {}, el("input", { type: "radio", name: "teach-view", value, checked: value === view, onchange: () => { view = value; train(); } }), ` ${name}`);
  const sliderText = el("output"), slider = el("input", { type: "range", min: 2, max: 2, oninput: () => { limit = Number(slider.value); if (slider.value === slider.max) limit = Infinity; train(); } });
  const board = el("table", { className: "table" }, el("caption", {}, "What you have tried with these pictures"),
    el("thead", {}, el("tr", {}, ...["the head sees", "right", "trained on"].map((text) => el("th", { scope: "col" }, text)))), el("tbody"));
  const answer = el("div", { className: "answer" }), unread = el("div", { className: "problems", role: "alert" }), other = button("Another new sample picture", askSample, { hidden: true });
  const test = el("div", { className: "box", role: "group", ariaLabel: "A new picture" }, other, chooser("Choose a new picture, or drop it here", ask, false), unread, answer);
  onDrop(test, ask);
  const result = el("div", { className: "result", hidden: true },
    el("h2", {}, "A new picture"), test,
    el("p", {}, "The shares add up to 100 % over your classes, whatever the picture shows. So it can be sure and wrong: a picture of something else gets one of your names, too. Try one."),
    el("h2", {}, "How often is it right?"), score,
    el("fieldset", {}, el("legend", {}, "What the head sees"), ...Object.entries(VIEWS).map(radio)),
    el("label", { className: "slider" }, "Pictures a class to train on: ", sliderText, slider), board,
    el("p", {}, "Each picture was named by a head that had not seen it: it is left out, the head trains on the others and names it."), mistakes,
    el("h2", {}, "What is frozen, and what trains"), parts, loss,
    el("h2", {}, "Take it with you"), el("p", {}, button("Download what you taught", download, { id: "teach-download" }), " The head's weights as JSON. ",
      el("a", { href: root.dataset.chapter }, "Chapter 1 loads them in Keras"), "."));
  root.append(el("p", { className: "start" }, sample, again), boxes, progress, status, problems, result);
  for (const name of ["first", "second", "third"]) addClass(name);
});
