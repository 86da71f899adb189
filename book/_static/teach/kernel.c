/* The two loops of the network that take the time, for WebAssembly with SIMD. network.js has the same in JavaScript.
   A picture is rows of pixels, each with its channels side by side (NHWC), float32; counts of channels out are
   multiples of 8. Compile (clang 14 or later, with lld), as tests/test_teach.py does:

   clang --target=wasm32 -O3 -msimd128 -ffreestanding -nostdlib -Wl,--no-entry,--import-memory,--strip-all -o kernel.wasm kernel.c
*/
#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(#name))) void name
#define FMA(sum, value, weight) sum = wasm_f32x4_add(sum, wasm_f32x4_mul(value, weight))

static inline void store(float *at, v128_t x, int relu6) {
  if (relu6) x = wasm_f32x4_min(wasm_f32x4_max(x, wasm_f32x4_splat(0)), wasm_f32x4_splat(6));
  wasm_v128_store(at, x);
}

/* A 1 x 1 convolution: y[p][o] = b[o] + sum over i of x[p][i] w[i][o]. Four pixels and eight channels out at a time;
   `pixels` is a multiple of 4. */
EXPORT(dense)(const float *x, const float *w, const float *b, float *y, int pixels, int in, int out, int relu6) {
  for (int o = 0; o < out; o += 8) {
    const v128_t b0 = wasm_v128_load(b + o), b1 = wasm_v128_load(b + o + 4);
    for (int p = 0; p < pixels; p += 4) {
      const float *x0 = x + p * in, *x1 = x0 + in, *x2 = x1 + in, *x3 = x2 + in, *k = w + o;
      v128_t s0 = b0, s1 = b1, t0 = b0, t1 = b1, u0 = b0, u1 = b1, v0 = b0, v1 = b1;
      for (int i = 0; i < in; i++, k += out) {
        const v128_t w0 = wasm_v128_load(k), w1 = wasm_v128_load(k + 4);
        v128_t a = wasm_v128_load32_splat(x0 + i); FMA(s0, a, w0); FMA(s1, a, w1);
        a = wasm_v128_load32_splat(x1 + i); FMA(t0, a, w0); FMA(t1, a, w1);
        a = wasm_v128_load32_splat(x2 + i); FMA(u0, a, w0); FMA(u1, a, w1);
        a = wasm_v128_load32_splat(x3 + i); FMA(v0, a, w0); FMA(v1, a, w1);
      }
      float *q = y + p * out + o;
      store(q, s0, relu6); store(q + 4, s1, relu6); q += out;
      store(q, t0, relu6); store(q + 4, t1, relu6); q += out;
      store(q, u0, relu6); store(q + 4, u1, relu6); q += out;
      store(q, v0, relu6); store(q + 4, v1, relu6);
    }
  }
}

/* A depthwise convolution, each channel for itself, with ReLU6: x is n x n, y is m x m, the window k x k with a stride.
   What lies outside of x counts as zero; `pad` rows and columns of it lie in front (TensorFlow's "same"). */
EXPORT(depthwise)(const float *x, const float *w, const float *b, float *y, int n, int m, int channels, int k, int stride, int pad) {
  for (int r = 0; r < m; r++) {
    const int top = r * stride - pad, u0 = top < 0 ? -top : 0, u1 = n - top < k ? n - top : k;
    for (int q = 0; q < m; q++) {
      const int left = q * stride - pad, v0 = left < 0 ? -left : 0, v1 = n - left < k ? n - left : k;
      for (int c = 0; c < channels; c += 4) {
        v128_t sum = wasm_v128_load(b + c);
        for (int u = u0; u < u1; u++)
          for (int v = v0; v < v1; v++)
            FMA(sum, wasm_v128_load(x + ((top + u) * n + left + v) * channels + c), wasm_v128_load(w + (u * k + v) * channels + c));
        store(y + (r * m + q) * channels + c, sum, 1);
      }
    }
  }
}
