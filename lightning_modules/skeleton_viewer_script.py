"""Style, controls and program of the page that `skeleton_viewer` writes.

Bodies are drawn on a canvas without perspective, far bones first. Dragging turns them about the
vertical and tilts them, the wheel zooms; space plays, arrows step.
"""

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --soft: #667; --line: #d8dce2;
  --left: #1f6fb4; --right: #d1495b; --middle: #4a4a4a; --truth: #9aa0a8; --trace: #e8a33d; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --text: #e8eaed; --soft: #9aa3ad;
  --line: #30363d; --left: #58a6ff; --right: #ff7b8a; --middle: #c9d1d9; --truth: #6e7681; } }
* { box-sizing: border-box; }
body { margin: 0; height: 100vh; height: 100dvh; display: flex; flex-direction: column;
  background: var(--back); color: var(--text); font: 15px/1.4 system-ui, sans-serif; }
header { padding: .6rem 1rem 0; } h1 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
header p { margin: 0; color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }
canvas { flex: 1; min-height: 0; width: 100%; touch-action: none; cursor: grab; }
canvas:active { cursor: grabbing; }
details { padding: 0 1rem .4rem; color: var(--soft); font-size: .85rem; }
table { border-spacing: 1.2rem 0; margin-left: -1.2rem; } td { text-align: right; }
td, th { font-variant-numeric: tabular-nums; } th { font-weight: normal; text-align: left; }
form { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center;
  padding: .6rem 1rem; border-top: 1px solid var(--line); }
form [type=range] { flex: 1 1 12rem; } label { white-space: nowrap; }
button, select { font: inherit; padding: .2rem .6rem; } select { max-width: 16rem; }
#play { width: 5rem; } output { color: var(--soft); font-variant-numeric: tabular-nums; }
.key { display: flex; gap: .9rem; color: var(--soft); font-size: .85rem; }
.key span::before { content: ''; display: inline-block; width: 1rem; height: 3px;
  margin-right: .3rem; vertical-align: middle; background: var(--c); }
#touch::before { width: .6rem; height: .6rem; border-radius: 50%; }
[hidden] { display: none !important; }
"""

CONTROLS = """
<canvas id="scene" aria-label="skeletons in motion"></canvas>
<details id="measured" open><summary>measured</summary><table id="facts"></table></details>
<form>
<button type="button" id="play" title="space">Play</button>
<input type="range" id="frame" min="0" value="0" aria-label="frame">
<output id="where"></output>
<label>speed <select id="speed"><option>0.25</option><option>0.5</option>
<option selected>1</option><option>2</option><option>4</option></select></label>
<label id="which">show <select id="clip"></select></label>
<label id="with"><input type="checkbox" id="truth" checked> truth</label>
<label id="moving"><input type="checkbox" id="follow" checked> follow</label>
<button type="button" id="front">Front</button>
<div class="key"><span style="--c:var(--left)">left</span>
<span style="--c:var(--right)">right</span>
<span id="grey" style="--c:var(--truth)">truth</span>
<span id="way" style="--c:var(--trace)">path</span>
<span id="touch" style="--c:var(--trace)">contact</span></div>
</form>
"""

SCRIPT = """
'use strict';
const get = id => document.getElementById(id);
const unpack = text => text && new Int16Array(
  Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
const clips = JSON.parse(get('clips').textContent);
const START = { yaw: -0.35, tilt: 0.2, zoom: 1 };
const joint = (clip, poses, f, j, i) => poses[(f * clip.joints + j) * 3 + i] * clip.step;
let view = { ...START }, frame = 0, playing = false, last = 0;

for (const clip of clips) {
  clip.poses = unpack(clip.poses); clip.truth = unpack(clip.truth);
  clip.joints = clip.bones.length + 1;
  clip.frames = clip.poses.length / (3 * clip.joints);
  // The cylinder about the vertical that holds every pose keeps them in sight however one turns.
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  let reach = 0;
  for (const poses of [clip.poses, clip.truth]) if (poses) for (let f = 0; f < clip.frames; f++) {
    const root = [0, 1].map(i => joint(clip, poses, f, clip.root, i));
    for (let j = 0; j < clip.joints; j++) {
      const point = [0, 1, 2].map(i => joint(clip, poses, f, j, i));
      point.forEach((value, i) => {
        low[i] = Math.min(low[i], value); high[i] = Math.max(high[i], value); });
      reach = Math.max(reach, Math.hypot(point[0] - root[0], point[1] - root[1]));
    }
  }
  if (clip.floor !== null) low[2] = Math.min(low[2], clip.floor);
  clip.middle = low.map((value, i) => (value + high[i]) / 2);
  clip.width = Math.hypot(high[0] - low[0], high[1] - low[1]) || 1;
  clip.reach = 2.6 * reach || 1;
  clip.height = (high[2] - low[2]) || 1;
  clip.ground = clip.floor === null ? low[2] : clip.floor;
}
const scenes = [...new Set(clips.map(clip => clip.scene))];
const scene = name => clips.filter(clip => clip.scene === name);
let shown = scene(scenes[0]);
const any_truth = clips.some(clip => clip.truth), floors = clips.some(clip => clip.floor !== null);
get('with').hidden = get('grey').hidden = !any_truth;
get('way').hidden = !floors; get('touch').hidden = !clips.some(clip => clip.contacts);
get('moving').hidden = !clips.some(clip => clip.travels);
get('which').hidden = scenes.length < 2;
scenes.forEach(name => get('clip').add(new Option(name, name)));
if (scenes.length > 1) {
  const all = new Option('all, side by side', ''); all.id = 'all'; get('clip').add(all);
}

const length = () => Math.max(...shown.map(clip => clip.frames));
const followed = () => get('follow').checked && shown.some(clip => clip.travels);

function distance(clip, f) {
  let sum = 0;
  for (let j = 0; j < clip.joints; j++) {
    sum += Math.hypot(...[0, 1, 2].map(
      i => joint(clip, clip.poses, f, j, i) - joint(clip, clip.truth, f, j, i)));
  }
  return sum / clip.joints;
}

function draw() {
  const canvas = get('scene'), pen = canvas.getContext('2d'), dense = devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * dense; canvas.height = height * dense;
  pen.scale(dense, dense); pen.lineCap = pen.lineJoin = 'round';
  const style = getComputedStyle(document.documentElement);
  const colour = name => style.getPropertyValue('--' + name);
  const follow = followed();
  const wide = Math.max(...shown.map(clip => follow ? clip.reach : clip.width));
  const high = Math.max(...shown.map(clip => clip.height));
  const cos = Math.cos(view.yaw), sin = Math.sin(view.yaw);
  const rise = Math.cos(view.tilt), lean = Math.sin(view.tilt);
  const scale = 0.9 * view.zoom
    * Math.min(width / (wide * 1.1 * shown.length), (height - 24) / (high * rise + wide * lean));
  shown.forEach((clip, place) => {
    const share = width / shown.length, centre = share * (place + 0.5);
    const f = Math.min(Math.floor(frame), clip.frames - 1);
    const middle = [...clip.middle];
    if (follow) for (const i of [0, 1]) middle[i] = joint(clip, clip.poses, f, clip.root, i);
    // To the right, up, and away from the eye.
    const turn = point => {
      const [x, y, z] = point.map((value, i) => value - middle[i]);
      const across = x * cos - y * sin, away = x * sin + y * cos;
      return [centre + scale * across, height / 2 - scale * (z * rise + away * lean),
        away * rise - z * lean];
    };
    const line = (points, name, thick) => {
      pen.beginPath(); points.forEach(point => pen.lineTo(point[0], point[1]));
      pen.strokeStyle = colour(name); pen.lineWidth = thick; pen.stroke();
    };
    pen.save(); pen.beginPath(); pen.rect(centre - share / 2, 0, share, height); pen.clip();
    // The floor has its own lines: a camera that follows passes over them.
    const edge = wide / 2, gap = wide / 8;
    for (const i of [0, 1]) {
      const first = follow ? Math.ceil((middle[i] - edge) / gap) * gap : middle[i] - edge;
      for (let at = first; at <= middle[i] + edge * 1.001; at += gap) {
        line([-edge, edge].map(side => {
          const point = [0, 0, clip.ground];
          point[i] = at; point[1 - i] = middle[1 - i] + side;
          return turn(point);
        }), 'line', 1);
      }
    }
    pen.fillStyle = colour('soft'); pen.textAlign = 'center'; pen.font = '13px system-ui';
    if (shown.length > 1) pen.fillText(clip.name, centre, 16, share - 8);
    if (clip.floor !== null) {
      const path = (from, to) => Array.from({ length: to - from + 1 }, (_, k) => turn(
        [...[0, 1].map(i => joint(clip, clip.poses, from + k, clip.root, i)), clip.ground]));
      line(path(0, clip.frames - 1), 'line', 2); line(path(0, f), 'trace', 2);
    }
    if (frame >= clip.frames) pen.globalAlpha = 0.4;
    const bones = [], thick = Math.max(2, scale * clip.height / 90);
    const add = (poses, name) => {
      const points = Array.from({ length: clip.joints }, (_, j) => turn(
        [0, 1, 2].map(i => joint(clip, poses, f, j, i))));
      for (const [parent, child, side] of clip.bones)
        bones.push([points[parent], points[child], name || side]);
    };
    if (clip.truth && get('truth').checked) add(clip.truth, 'truth');
    add(clip.poses, null);
    if (clip.contacts) clip.feet.forEach((foot, k) => {
      if (clip.contacts[k][f] !== '1') return;
      const point = turn(
        [...[0, 1].map(i => joint(clip, clip.poses, f, foot, i)), clip.ground]);
      pen.beginPath(); pen.ellipse(point[0], point[1], thick * 2, thick * (0.6 + lean), 0, 0, 7);
      pen.fillStyle = colour('trace'); pen.fill();
    });
    bones.sort((a, b) => b[0][2] + b[1][2] - a[0][2] - a[1][2]);
    for (const [a, b, name] of bones) line([a, b], name, name === 'truth' ? thick * 0.6 : thick);
    pen.restore();
  });
  const f = Math.floor(frame), only = shown[0];
  let text = `frame ${f} of ${length()}, ${(f / only.fps).toFixed(2)} s`;
  if (shown.length === 1 && only.truth && get('truth').checked) {
    const error = distance(only, f);
    text += `, off by ${error.toFixed(only.unit === 'mm' ? 1 : 4)} ${only.unit}`;
  }
  get('where').value = text;
  get('frame').max = length() - 1; get('frame').value = f;
}

function describe() {
  const captions = [...new Set(shown.map(clip => clip.caption))];
  const text = captions.join(' | ');
  get('caption').textContent = text;
  get('caption').hidden = text === document.querySelector('h1').textContent;
  const names = [...new Set(shown.flatMap(clip => Object.keys(clip.facts)))];
  get('measured').hidden = names.length === 0;
  const rows = [['', ...shown.map(clip => clip.name)],
    ...names.map(name => [name, ...shown.map(clip => clip.facts[name] || '')])];
  get('facts').replaceChildren(...rows.map(cells => {
    const row = document.createElement('tr');
    row.append(...cells.map((cell, i) => {
      const made = document.createElement(i ? 'td' : 'th'); made.textContent = cell; return made;
    }));
    return row;
  }));
}

function play(on) {
  playing = on; get('play').textContent = on ? 'Pause' : 'Play';
  if (on) { last = performance.now(); requestAnimationFrame(tick); }
}
function tick(now) {
  if (!playing) return;
  frame = (frame + (now - last) / 1000 * shown[0].fps * get('speed').value) % length();
  last = now; draw(); requestAnimationFrame(tick);
}
function go(to) { frame = (to + length()) % length(); draw(); }

get('play').onclick = () => play(!playing);
get('frame').oninput = event => { play(false); go(+event.target.value); };
get('truth').onchange = get('follow').onchange = draw;
get('front').onclick = () => { view = { yaw: 0, tilt: 0, zoom: 1 }; draw(); };
get('clip').onchange = event => {
  const chosen = event.target.selectedOptions[0];
  shown = chosen.id === 'all' ? clips : scene(chosen.value);
  frame = Math.min(frame, length() - 1); describe(); draw();
};
get('scene').onpointerdown = event => event.target.setPointerCapture(event.pointerId);
get('scene').onpointermove = event => {
  if (!event.buttons) return;
  view.yaw += event.movementX / 150;
  view.tilt = Math.max(-0.2, Math.min(1.5, view.tilt + event.movementY / 200)); draw();
};
get('scene').addEventListener('wheel', event => {
  event.preventDefault();
  view.zoom = Math.max(0.5, Math.min(4, view.zoom * Math.exp(-event.deltaY / 800))); draw();
}, { passive: false });
document.onkeydown = event => {
  if (event.target.tagName === 'SELECT') return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.key === ' ') play(!playing);
  else if (step) { play(false); go(Math.floor(frame) + step); } else return;
  event.preventDefault();
};
document.querySelector('form').onsubmit = event => event.preventDefault();
matchMedia('(prefers-color-scheme: dark)').onchange = draw;
new ResizeObserver(draw).observe(get('scene'));
describe(); draw();
if (length() > 1 && !matchMedia('(prefers-reduced-motion: reduce)').matches) play(true);
"""
