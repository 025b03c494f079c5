"""Style, controls and program of the page that `cloud_viewer` writes.

Every way to look at a cloud has its pane, and all panes turn together. Points are drawn nearest on
top into the pixels of a canvas. Dragging turns, dragging with the right button or shift moves, the
wheel zooms; what is under the pointer is named.
"""

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --soft: #667; --line: #d8dce2; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --text: #e8eaed; --soft: #9aa3ad;
  --line: #30363d; } }
* { box-sizing: border-box; }
body { margin: 0; height: 100vh; height: 100dvh; display: flex; flex-direction: column;
  background: var(--back); color: var(--text); font: 15px/1.4 system-ui, sans-serif; }
header { padding: .6rem 1rem 0; } h1 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
#panes { flex: 1; min-height: 0; display: grid; gap: 1px; background: var(--line); }
figure { margin: 0; position: relative; background: var(--back); min-width: 0; min-height: 0; }
figcaption { position: absolute; left: .6rem; top: .3rem; font-size: .85rem; color: var(--soft);
  pointer-events: none; }
canvas { position: absolute; inset: 0; width: 100%; height: 100%; touch-action: none;
  cursor: grab; } canvas:active { cursor: grabbing; }
form { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center;
  padding: .6rem 1rem; } label { white-space: nowrap; }
button, select { font: inherit; padding: .2rem .6rem; } select { max-width: 16rem; }
output { color: var(--soft); flex: 1 1 14rem; text-align: right; }
[hidden] { display: none !important; }
"""

CONTROLS = """
<div id="panes"></div>
<form>
<label id="which">frame <select id="cloud"></select></label>
<label>show <select id="mode"></select></label>
<label>point size <input type="range" id="size" min="1" max="8" step="1" value="3"></label>
<button type="button" id="home">Reset view</button>
<output id="named">drag to turn, shift-drag to move, wheel to zoom</output>
</form>
"""

SCRIPT = """
'use strict';
const get = id => document.getElementById(id);
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const clouds = JSON.parse(get('clouds').textContent);
const HOME = { yaw: -0.6, tilt: 0.5, zoom: 1, x: 0, y: 0 };
let view, cloud, panes = [], due = false;
// A frame is first seen from where its camera stood.
const home = () => { view = { ...HOME, yaw: cloud.heading ?? HOME.yaw }; draw(); };

function heat(value) {
  const ends = [[33, 102, 172], [170, 170, 170], [178, 24, 43]], x = value / 127.5;
  const a = ends[x < 1 ? 0 : 1], b = ends[x < 1 ? 1 : 2], t = x < 1 ? x : x - 1;
  return a.map((from, i) => Math.round(from + (b[i] - from) * t));
}

function choose(place) {
  cloud = clouds[place];
  if (typeof cloud.xyz === 'string') unpack(cloud);
  const chosen = get('mode').value;
  get('mode').replaceChildren(new Option('all', 'all'),
    ...cloud.modes.map(mode => new Option(mode.name, mode.name)));
  if ([...get('mode').options].some(option => option.value === chosen)) get('mode').value = chosen;
  home();
  layout();
}

function unpack(cloud) {
  cloud.xyz = new Uint16Array(bytes(cloud.xyz).buffer);
  cloud.count = cloud.xyz.length / 3;
  const high = [0, 0, 0];
  cloud.xyz.forEach((value, i) => { high[i % 3] = Math.max(high[i % 3], value); });
  cloud.middle = high.map(value => value / 2);
  cloud.reach = Math.hypot(...high) / 2 || 1;
  for (const mode of cloud.modes) {
    mode.colour = new Uint32Array(cloud.count);
    const pack = ([r, g, b]) => 0xff000000 | b << 16 | g << 8 | r;
    if (mode.ids) {
      mode.ids = new Uint16Array(bytes(mode.ids).buffer);
      const palette = mode.palette.map(pack);
      mode.ids.forEach((id, i) => { mode.colour[i] = palette[id]; });
    } else if (mode.heat) {
      mode.heat = bytes(mode.heat);
      mode.heat.forEach((value, i) => { mode.colour[i] = pack(heat(value)); });
    } else {
      const rgb = bytes(mode.rgb);
      for (let i = 0; i < cloud.count; i++) mode.colour[i] = pack(rgb.subarray(3 * i, 3 * i + 3));
    }
  }
}

function layout() {
  const chosen = get('mode').value;
  const modes = cloud.modes.filter(mode => chosen === 'all' || mode.name === chosen);
  const wide = innerWidth > innerHeight;
  const columns = modes.length > 2 ? 2 : wide ? modes.length : 1;
  get('panes').style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
  get('panes').replaceChildren(...(panes = modes.map(mode => {
    const pane = document.createElement('figure'), title = document.createElement('figcaption');
    pane.canvas = document.createElement('canvas'); pane.mode = mode;
    title.textContent = mode.name === 'gate' ? 'gate: red = image, blue = points' : mode.name;
    pane.append(pane.canvas, title); listen(pane); return pane;
  })));
  draw();
}

function draw() { if (!due) { due = true; requestAnimationFrame(paint); } }

function paint() {
  due = false;
  for (const pane of panes) render(pane);
}

function render(pane) {
  const { canvas, mode } = pane, dense = Math.min(devicePixelRatio || 1, 2);
  const width = canvas.width = Math.max(1, Math.round(canvas.clientWidth * dense));
  const height = canvas.height = Math.max(1, Math.round(canvas.clientHeight * dense));
  const picture = new ImageData(width, height), pixels = new Uint32Array(picture.data.buffer);
  const depth = new Float32Array(width * height).fill(Infinity);
  const owner = new Int32Array(width * height).fill(-1);
  const cos = Math.cos(view.yaw), sin = Math.sin(view.yaw);
  const rise = Math.cos(view.tilt), lean = Math.sin(view.tilt);
  const scale = 0.62 * view.zoom * Math.min(width, height * 1.3) / cloud.reach;
  const size = Math.max(1, Math.round(get('size').value * dense * Math.sqrt(view.zoom)
    * (cloud.count < 10000 ? 1 : 0.7)));
  const { xyz, count, middle } = cloud, half = size >> 1;
  const left = width / 2 + view.x * dense, top = height / 2 + view.y * dense;
  for (let i = 0; i < count; i++) {
    const x = xyz[3 * i] - middle[0], y = xyz[3 * i + 1] - middle[1];
    const z = xyz[3 * i + 2] - middle[2];
    const away = x * sin + y * cos;
    const column = Math.round(left + scale * (x * cos - y * sin)) - half;
    const row = Math.round(top - scale * (z * rise + away * lean)) - half;
    const far = away * rise - z * lean;
    for (let r = Math.max(row, 0); r < Math.min(row + size, height); r++) {
      for (let c = Math.max(column, 0); c < Math.min(column + size, width); c++) {
        const at = r * width + c;
        if (far < depth[at]) { depth[at] = far; pixels[at] = mode.colour[i]; owner[at] = i; }
      }
    }
  }
  canvas.getContext('2d').putImageData(picture, 0, 0);
  pane.owner = owner; pane.dense = dense;
}

function tell(pane, event) {
  const box = pane.canvas.getBoundingClientRect();
  const c = Math.floor((event.clientX - box.left) * pane.dense);
  const r = Math.floor((event.clientY - box.top) * pane.dense);
  const i = pane.owner[r * pane.canvas.width + c];
  if (i === undefined || i < 0) { get('named').value = ''; return; }
  get('named').value = cloud.modes.filter(mode => mode.ids || mode.heat).map(mode =>
    `${mode.name}: ` + (mode.ids ? mode.names[mode.ids[i]] || 'none'
      : `${(mode.heat[i] / 255).toFixed(2)} image`))
    .concat(`${(cloud.xyz[3 * i + 2] * cloud.step).toFixed(2)} m high`).join('; ');
}

function listen(pane) {
  const canvas = pane.canvas;
  canvas.onpointerdown = event => canvas.setPointerCapture(event.pointerId);
  canvas.oncontextmenu = event => event.preventDefault();
  canvas.onpointermove = event => {
    if (!event.buttons) { tell(pane, event); return; }
    if (event.shiftKey || event.buttons & 2) {
      view.x += event.movementX; view.y += event.movementY;
    } else {
      view.yaw += event.movementX / 150;
      view.tilt = Math.max(-1.57, Math.min(1.57, view.tilt + event.movementY / 150));
    }
    draw();
  };
  canvas.addEventListener('wheel', event => {
    event.preventDefault();
    view.zoom = Math.max(0.3, Math.min(12, view.zoom * Math.exp(-event.deltaY / 600))); draw();
  }, { passive: false });
}

clouds.forEach((cloud, i) => get('cloud').add(new Option(cloud.name, i)));
get('which').hidden = clouds.length < 2;
get('cloud').onchange = () => choose(get('cloud').value);
get('mode').onchange = layout;
get('size').oninput = draw;
get('home').onclick = home;
document.querySelector('form').onsubmit = event => event.preventDefault();
new ResizeObserver(draw).observe(get('panes'));
choose(0);
"""
