/* The head, the part that trains: softmax regression on vectors of length 1.

   Its weights are sums of the training pictures, W = sum over i of A[i] (x[i] - mean). So descent on A needs no
   vectors, only the products of each pair of pictures, and takes milliseconds. */
"use strict";
const Head = (() => {
  const STEPS = 150, PENALTY = 1e-2, MOMENTUM = 0.9;
  const dot = (a, b) => { let sum = 0; for (let i = 0; i < a.length; i++) sum += a[i] * b[i]; return sum; };
  const unit = (v) => { const length = Math.sqrt(dot(v, v)) || 1; return v.map((x) => x / length); };
  const products = (X) => X.map((a) => Float64Array.from(X, (b) => dot(a, b)));
  const largest = (p) => p.indexOf(Math.max(...p));
  const softmax = (z) => {
    const top = Math.max(...z), e = z.map((v) => Math.exp(v - top)), sum = e.reduce((a, b) => a + b);
    return e.map((v) => v / sum);
  };

  /* Takes each number's mean and spread over some vectors away: what a random network needs to be compared fairly. */
  const standardiser = (X) => {
    const mean = X[0].map((_, j) => X.reduce((sum, x) => sum + x[j], 0) / X.length);
    const spread = mean.map((m, j) => Math.sqrt(X.reduce((sum, x) => sum + (x[j] - m) ** 2, 0) / X.length) || 1);
    return (x) => x.map((v, j) => (v - mean[j]) / spread[j]);
  };

  /* The products of the pictures `rows` after their mean is taken off, and what takes it off others. */
  const centred = (K, rows) => {
    const n = rows.length, means = rows.map((i) => rows.reduce((sum, j) => sum + K[i][j], 0) / n);
    const all = means.reduce((a, b) => a + b) / n;
    const off = (line) => {
      const own = rows.reduce((sum, j) => sum + line[j], 0) / n;
      return Float64Array.from(rows, (j, s) => line[j] - own - means[s] + all);
    };
    return { off, lines: rows.map((i) => off(K[i])) };
  };

  /* The largest stretch of a matrix, by repeated multiplication: it bounds the size of a step. */
  const stretch = (lines) => {
    let v = unit(Float64Array.from(lines, (_, i) => 1 + (i % 3))), size = 1e-6;
    for (let k = 0; k < 12; k++) {
      const w = v.map((_, i) => dot(lines[i], v));
      size = Math.max(Math.sqrt(dot(w, w)), 1e-6);
      v = unit(w);
    }
    return size;
  };

  /* Trains on the pictures `rows`. K: products of all pairs; y: the class of each picture. */
  const fit = (K, y, nClasses, rows) => {
    const n = rows.length, { off, lines } = centred(K, rows), rate = 2 / stretch(lines), losses = [];
    const zeros = () => Array.from({ length: nClasses }, () => new Float64Array(n));
    const A = zeros(), speed = zeros(), bias = new Array(nClasses).fill(0), biasSpeed = bias.slice();
    for (let step = 0; step < STEPS; step++) {
      let loss = 0;
      const errors = lines.map((line, r) => {
        const p = softmax(bias.map((b, c) => b + dot(line, A[c])));
        loss -= Math.log(p[y[rows[r]]] + 1e-12) / n;
        p[y[rows[r]]] -= 1;
        return p;
      });
      losses.push(loss);
      for (let c = 0; c < nClasses; c++) {
        let sum = 0;
        for (let r = 0; r < n; r++) {
          const error = errors[r][c];
          speed[c][r] = MOMENTUM * speed[c][r] - rate * (error + PENALTY * A[c][r]);
          A[c][r] += speed[c][r];
          sum += error / n;
        }
        biasSpeed[c] = MOMENTUM * biasSpeed[c] - sum;
        bias[c] += biasSpeed[c];
      }
    }
    return { A, bias, rows, losses, off };
  };

  /* Probabilities of a picture, from its products with all pictures. */
  const predict = (head, line) => {
    const own = head.off(line);
    return softmax(head.bias.map((b, c) => b + dot(own, head.A[c])));
  };

  /* The same head as a layer: `kernel` (numbers of a vector, classes) and `bias`, for vectors of length 1. */
  const asLayer = (head, X) => {
    const used = head.rows.map((i) => X[i]);
    const mean = used[0].map((_, j) => used.reduce((sum, x) => sum + x[j], 0) / used.length);
    const kernel = Array.from(mean, (m, j) => head.A.map((a) => used.reduce((sum, x, r) => sum + a[r] * (x[j] - m), 0)));
    const bias = head.bias.map((b, c) => b - kernel.reduce((sum, row, j) => sum + row[c] * mean[j], 0));
    return { kernel, bias };
  };
  return { dot, unit, products, largest, standardiser, fit, predict, asLayer };
})();
