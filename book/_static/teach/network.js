/* The frozen network: EfficientNet-Lite0 without its top, from a picture's pixels to 1,280 features.

   A convolution of 1 x 1 mixes the channels of each pixel (`dense`); a depthwise one mixes a pixel with its neighbours,
   each channel for itself. Every block is wide, depthwise, narrow; where the shapes fit, its input is added to its end.
   The normalisations are folded into weights and biases. tools/teach.py writes the weights in this order. */
"use strict";
const Network = (() => {
  const FEATURES = 1280, PAGE = 65536, FREE = 2 * PAGE; // the first two pages of memory belong to the compiled loops
  const bytes = (text) => {
    const binary = atob(text), found = new Uint8Array(binary.length);
    for (let i = 0; i < found.length; i++) found[i] = binary.charCodeAt(i);
    return found;
  };

  /* The loops of kernel.c in JavaScript: for reading, and for browsers without WebAssembly. Addresses count bytes. */
  const plainLoops = (buffer) => {
    const f = new Float32Array(buffer), relu6 = (v) => Math.min(Math.max(v, 0), 6);
    return {
      dense(x, w, b, y, pixels, inputs, outputs, isRelu6) {
        x /= 4; w /= 4; b /= 4; y /= 4;
        const sum = new Float32Array(outputs);
        for (let p = 0; p < pixels; p++) {
          for (let o = 0; o < outputs; o++) sum[o] = f[b + o];
          for (let i = 0; i < inputs; i++) {
            const value = f[x + p * inputs + i], row = w + i * outputs;
            if (value !== 0) for (let o = 0; o < outputs; o++) sum[o] += value * f[row + o];
          }
          for (let o = 0; o < outputs; o++) f[y + p * outputs + o] = isRelu6 ? relu6(sum[o]) : sum[o];
        }
      },
      depthwise(x, w, b, y, n, m, channels, k, stride, pad) {
        x /= 4; w /= 4; b /= 4; y /= 4;
        const sum = new Float32Array(channels);
        for (let r = 0; r < m; r++) for (let q = 0; q < m; q++) {
          for (let c = 0; c < channels; c++) sum[c] = f[b + c];
          for (let u = 0; u < k; u++) for (let v = 0; v < k; v++) {
            const i = r * stride - pad + u, j = q * stride - pad + v;
            if (i < 0 || j < 0 || i >= n || j >= n) continue; // outside of the picture: zero
            const pixel = x + (i * n + j) * channels, window = w + (u * k + v) * channels;
            for (let c = 0; c < channels; c++) sum[c] += f[pixel + c] * f[window + c];
          }
          for (let c = 0; c < channels; c++) f[y + (r * m + q) * channels + c] = relu6(sum[c]);
        }
      },
    };
  };

  /* Normally distributed numbers from a fixed seed: the same random network in every browser. */
  const normal = (seed) => {
    const uniform = () => { // mulberry32
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  };

  /* Puts biases and weights into memory `f`, from byte `to` on, and notes in each layer where they lie.
     The file has weights as (out, in, height, width); the loops want (height, width, in, out). */
  const unpack = (f, raw, header, from, to, random) => {
    const Kind = header.whole ? Int8Array : Float32Array, draw = normal(1);
    for (const layer of header.layers) {
      const area = layer.size ** 2, n = layer.in * area;
      const step = new Float32Array(raw.buffer, from + 4 * layer.out, layer.out);
      const weight = new Kind(raw.buffer, from + 8 * layer.out, layer.out * n);
      const spread = Math.sqrt((layer.relu6 ? 2 : 1) / n); // keeps a random network's values of one size
      layer.bias = to;
      if (!random) f.set(new Float32Array(raw.buffer, from, layer.out), to / 4);
      layer.weight = to += 4 * layer.out;
      let at = to / 4;
      for (let a = 0; a < area; a++) for (let i = 0; i < layer.in; i++) for (let o = 0; o < layer.out; o++) {
        f[at++] = random ? spread * draw() : weight[o * n + i * area + a] * step[o];
      }
      to += 4 * layer.out * n;
      from += 8 * layer.out + ((weight.byteLength + 3) & ~3);
    }
    return (to + 15) & ~15;
  };

  /* Stem, 3 x 3 with stride 2: each output pixel's 27 inputs side by side, (value - 127) / 128. Zeros lie right and below. */
  const spreadOut = (f, at, rgba, size) => {
    for (let r = 0; r < size; r += 2) for (let q = 0; q < size; q += 2) for (let u = 0; u < 3; u++) for (let v = 0; v < 3; v++) {
      const pixel = 4 * ((r + u) * size + q + v), isInside = r + u < size && q + v < size;
      for (let c = 0; c < 3; c++) f[at++] = isInside ? (rgba[pixel + c] - 127) / 128 : 0;
    }
  };

  /* Returns the network. `stored`: weights and kernel in base64; `random`: the same network, untrained;
     `plain`: without WebAssembly. `features` takes `size` x `size` pixels as RGBA, 0 to 255. */
  const load = (stored, { random = false, plain = false, size = 224 } = {}) => {
    const raw = bytes(stored.weights), length = new DataView(raw.buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(raw.subarray(4, 4 + length))), { layers } = header;
    const numbers = layers.reduce((sum, l) => sum + l.out * (l.in * l.size ** 2 + 1), 0);
    const room = 4 * ((size / 2) ** 2 * 96 + 4096); // the widest map: 96 channels behind the first wide convolution
    const pages = Math.ceil((FREE + 4 * numbers + 4 * room + 4096) / PAGE);
    let buffer, loops, isCompiled = false;
    try {
      if (plain) throw new Error("not wanted");
      const memory = new WebAssembly.Memory({ initial: pages });
      loops = new WebAssembly.Instance(new WebAssembly.Module(bytes(stored.kernel)), { env: { memory } }).exports;
      ({ buffer } = memory);
      isCompiled = true;
    } catch {
      buffer = new ArrayBuffer(pages * PAGE);
      loops = plainLoops(buffer);
    }
    const f = new Float32Array(buffer);
    const free = unpack(f, raw, header, 4 + length, FREE, random), slots = [0, 1, 2, 3].map((i) => free + i * room);

    const features = (rgba) => {
      let n = size / 2, x = slots[0], before = x;
      const pixels = () => (n * n + 3) & ~3;
      spreadOut(f, slots[1] / 4, rgba, size);
      loops.dense(slots[1], layers[0].weight, layers[0].bias, x, pixels(), 27, layers[0].out, 1);
      for (const layer of layers.slice(1)) {
        if (layer.start) before = x;
        const y = slots.find((slot) => slot !== x && slot !== before);
        if (layer.depthwise) {
          const m = Math.ceil(n / layer.stride), pad = Math.max((m - 1) * layer.stride + layer.size - n, 0) >> 1;
          loops.depthwise(x, layer.weight, layer.bias, y, n, m, layer.out, layer.size, layer.stride, pad);
          n = m;
        } else loops.dense(x, layer.weight, layer.bias, y, pixels(), layer.in, layer.out, layer.relu6);
        if (layer.add) for (let i = 0, a = y / 4, b = before / 4; i < n * n * layer.out; i++) f[a + i] += f[b + i];
        x = y;
      }
      const mean = new Float32Array(FEATURES);
      for (let p = 0; p < n * n; p++) for (let c = 0; c < FEATURES; c++) mean[c] += f[x / 4 + p * FEATURES + c] / (n * n);
      return mean;
    };
    return { features, isCompiled, numbers, size };
  };
  return { load };
})();
