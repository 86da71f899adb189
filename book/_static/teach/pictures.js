/* Pictures: from a file to what the network sees, and what to say of a file that is none. */
"use strict";
const Pictures = (() => {
  const SIZE = 224, COARSE = 16, TAKE = "Take JPEG, PNG, WebP or GIF.";
  const KNOWN = [["\x89PNG"], ["\xff\xd8\xff"], ["GIF8"], ["BM"], ["RIFF", "WEBP"]];

  /* Why a file could not be decoded, from its first bytes: names of files lie. */
  const reason = (head, length) => {
    const brand = head.slice(4, 8) === "ftyp" ? head.slice(8, 12) : "";
    if (!length) return "is empty.";
    if (/^(hei|hev|mif1|msf1)/.test(brand)) return `is a HEIC picture, which this browser cannot read. Save it as JPEG first. (An iPhone takes JPEG with Settings, Camera, Formats, Most Compatible.)`;
    if (brand) return `is a film, or a picture of a kind (${brand.trim()}) that this browser cannot read. ${TAKE}`;
    if (/^(II\*\0|MM\0\*)/.test(head)) return `is a TIFF or raw picture, which this browser cannot read. ${TAKE}`;
    if (KNOWN.some(([start, kind = ""]) => head.startsWith(start) && head.includes(kind))) return "is damaged or not complete.";
    return `is no picture that this browser can read. ${TAKE}`;
  };

  const decode = async (address) => {
    const image = new Image();
    image.src = address;
    await image.decode();
    if (!image.naturalWidth) throw new Error("no size");
    return image;
  };

  /* The middle square of an image at 224 x 224 pixels, on white. */
  const square = (image) => {
    const side = Math.min(image.naturalWidth, image.naturalHeight);
    const canvas = Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff";
    context.fillRect(0, 0, SIZE, SIZE);
    context.imageSmoothingQuality = "high";
    context.drawImage(image, (image.naturalWidth - side) / 2, (image.naturalHeight - side) / 2, side, side, 0, 0, SIZE, SIZE);
    return canvas;
  };

  /* Without a network: 16 x 16 coarse pixels, less their mean, so that brightness does not count. */
  const coarse = (rgba) => {
    const sums = new Float32Array(COARSE * COARSE * 3), cell = SIZE / COARSE;
    for (let i = 0; i < SIZE * SIZE; i++) {
      const at = 3 * (Math.floor(i / SIZE / cell) * COARSE + Math.floor((i % SIZE) / cell));
      for (let c = 0; c < 3; c++) sums[at + c] += rgba[4 * i + c];
    }
    const mean = sums.reduce((a, b) => a + b) / sums.length;
    return sums.map((v) => v - mean);
  };

  /* Reads a file, or an address with data in it. Throws an Error with words for the reader. */
  const read = async (source, name) => {
    let address = source;
    if (source instanceof Blob) {
      let head;
      try {
        head = String.fromCharCode(...new Uint8Array(await source.slice(0, 16).arrayBuffer()));
      } catch {
        throw new Error(`${name} is a folder, or cannot be read. Open the folder and take the pictures in it.`);
      }
      address = URL.createObjectURL(source);
      try {
        return fromImage(await decode(address));
      } catch {
        throw new Error(`${name} ${reason(head, source.size)}`);
      } finally {
        URL.revokeObjectURL(address);
      }
    }
    return fromImage(await decode(address));
  };
  const fromImage = (image) => {
    const canvas = square(image), rgba = canvas.getContext("2d").getImageData(0, 0, SIZE, SIZE).data;
    return { rgba, url: canvas.toDataURL("image/jpeg", 0.85), vectors: { pixels: coarse(rgba) } };
  };
  return { read };
})();
