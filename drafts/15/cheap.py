#--- mixing
def copies(x, y, recipe, epoch=0):
    # One epoch's images and soft labels; layers that ship with Keras.
    mix = keras.layers.MixUp() if epoch % 2 else keras.layers.CutMix()
    layers = {
        "plain": [],
        "mixup": [keras.layers.MixUp()],
        "cutmix": [keras.layers.CutMix()],
        "randaugment": [keras.layers.RandAugment()],
        "together": [keras.layers.RandAugment(), mix],
    }[recipe]
    pair = {"images": x.astype("float32"), "labels": one_hot(y)}
    for layer in layers:
        pair = layer(pair, training=True)
    return [keras.ops.convert_to_numpy(pair[k]) for k in ("images", "labels")]

#--- top
TOP = "block6d_add"  # below it nothing learns in this section
seen = resized(
    keras.Model(base.input, base.get_layer(TOP).output), SIDE
)
top = keras.Model(base.get_layer(TOP).output, base.output)


def turned(x):
    return x[:, :, ::-1]


def passes(x, y, recipe, epochs, seed):
    # What the top sees: fresh copies in each epoch, half of them flipped.
    keras.utils.set_random_seed(seed)
    rng, found = np.random.default_rng(seed), []
    as_is = [seen.predict(v, verbose=0) for v in (x, turned(x))]
    for epoch in range(epochs):
        turn = (rng.random(len(x)) < 0.5)[:, None, None, None]
        if recipe == "plain":
            found.append((np.where(turn, as_is[1], as_is[0]), one_hot(y)))
            continue
        v = np.where(turn, turned(x), x)
        v, soft = copies(v, y, recipe, epoch)
        found.append((seen.predict(v, verbose=0), soft))
    return found

#--- after
def right(z, y):
    return float((z.argmax(axis=1) == y).mean())


def logits(net, weights, a):
    net.set_weights(weights)
    return net.predict(a, verbose=0)


def soup(runs):
    # The mean of several networks' weights, tensor by tensor.
    return [np.mean(same, axis=0) for same in zip(*runs, strict=True)]

#--- measure_cheap
RECIPES = ("plain", "mixup", "cutmix", "randaugment", "together")
LONG = 3  # times as many steps


def measure_cheap(seed):
    ds, v = load(seed), {}
    x, y = ds.x_train, ds.y_train
    a, a_test, a_turned = (
        seen.predict(part, verbose=0)
        for part in (x, ds.x_test, turned(ds.x_test))
    )
    keras.utils.set_random_seed(seed)
    net = opened("full", TOP)
    head = solved_head(top.predict(a, verbose=0), y)
    start = compiled(net, head, a)

    def run(recipe, epochs=EPOCHS, again=0):
        chance = seed + 1000 * again
        fed = passes(x, y, recipe, epochs, chance)
        train(net, start, fed, PEAK["last_block"], chance)
        return net.get_weights()

    def note(name, weights):
        z = logits(net, weights, a_test)
        both = z + logits(net, weights, a_turned)
        v[f"cheap_{name}"] = right(z, ds.y_test)
        v[f"cheap_{name}_two"] = right(both, ds.y_test)
        v[f"cheap_{name}_fit"] = right(logits(net, weights, a), y)
        return z

    note("head", start)
    runs = [run("plain", again=k) for k in range(3)]
    note("plain", runs[0])
    z = [logits(net, weights, a_test) for weights in runs]
    v["cheap_each"] = float(np.mean([right(one, ds.y_test) for one in z]))
    v["cheap_answers"] = right(sum(z), ds.y_test)
    note("soup", soup(runs))
    for recipe in RECIPES[1:]:
        note(recipe, run(recipe))
    for recipe in ("plain", "together"):
        note(f"{recipe}_long", run(recipe, LONG * EPOCHS))
    return v

#--- measure_arms
def size_of(net):
    # Bytes of a file with what was trained, and nothing else.
    file = io.BytesIO()
    parts = [keras.ops.convert_to_numpy(w) for w in net.trainable_weights]
    np.savez(file, *parts)
    return file.tell()


def measure_arms(seed):
    ds, v = load(seed), {}
    a, a_test = (trunk.predict(x, verbose=0) for x in (ds.x_train, ds.x_test))
    head = solved_head(above.predict(a, verbose=0), ds.y_train)
    fed = [(a, one_hot(ds.y_train))] * EPOCHS
    for arm in (*ARMS, "lora_16"):
        keras.utils.set_random_seed(seed)
        kind, rank = ("lora", 16) if arm == "lora_16" else (arm, 4)
        net = opened(kind, rank=rank)
        start = compiled(net, head, a)
        if arm == "full":
            v["few_head"] = right(logits(net, start, a_test), ds.y_test)
        v[f"few_{arm}_seconds"] = train(net, start, fed, PEAK[kind], seed)
        v[f"few_{arm}"] = accuracy(net, a_test, ds.y_test)
        v[f"few_{arm}_numbers"] = count(net.trainable_weights[:-2])
        v[f"few_{arm}_mb"] = size_of(net) / 1e6
    return v
