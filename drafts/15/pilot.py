import re,sys,time
PROFILE=None if len(sys.argv)<2 else sys.argv[1]; MEASURE=False
src=open("drafts/15/core.py").read()
t=time.time(); exec(src); print("core",time.time()-t,flush=True)
for s in ((100,) if not SMOKE else (0,)):
    pass
    ds, v = load(s), {}
    a, a_val, a_test = (trunk.predict(x, verbose=0) for x in (ds.x_train, ds.x_val, ds.x_test))
    head = solved_head(above.predict(a, verbose=0), ds.y_train)
    for arm in ARMS:
        keras.utils.set_random_seed(s)
        net = opened(arm); t=time.time()
        start = compiled(net, head, a); tr=time.time()-t
        if arm=="norm": print("start", (np.asarray([accuracy(net.__class__ and net,a_val,ds.y_val)])))
        for k, peak in enumerate(PEAKS):
            sec=train(net, start, [(a, one_hot(ds.y_train))] * EPOCHS, peak, s)
            print(arm,count(net.trainable_weights),"trace",round(tr,1),peak,"sec",round(sec,1),"val",accuracy(net,a_val,ds.y_val),"test",accuracy(net,a_test,ds.y_test),flush=True)
