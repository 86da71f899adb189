PROFILE="laptop"; MEASURE=False
src=open("drafts/15/core.py").read()
src=src.replace('''            "full": True,
''','''            "full": True,
            "lora_dw": is_pointwise(layer) or isinstance(layer, keras.layers.DepthwiseConv2D),
            "lora_all": is_pointwise(layer) or isinstance(layer, (StillNorm,keras.layers.DepthwiseConv2D)),
            "dw": isinstance(layer, keras.layers.DepthwiseConv2D),
''').replace('if arm == "lora" and','if arm.startswith("lora") and')
exec(src)
s=100
ds=load(s)
x=np.concatenate([ds.x_train,ds.x_train[:,:,::-1]])
a,af,a_val,a_test=(trunk.predict(v,verbose=0) for v in (ds.x_train,ds.x_train[:,:,::-1],ds.x_val,ds.x_test))
head=solved_head(above.predict(a,verbose=0),ds.y_train)
y=one_hot(ds.y_train)
rng=np.random.default_rng(0)
def flips(n): return [(np.where((rng.random(len(a))<.5)[:,None,None,None],af,a),y) for _ in range(n)]
for arm,rank,peaks in (("lora_all",4,(1e-3,3e-3)),("dw",4,(3e-3,)),("lora",16,(1e-3,3e-3)),("lora_dw",4,(3e-3,)),("full",4,(1e-3,))):
    keras.utils.set_random_seed(s)
    net=opened(arm,rank=rank); start=compiled(net,head,a)
    for peak in peaks:
        for kind,fed in (("same6",[(a,y)]*6),("flip6",flips(6)),("flip12",flips(12))):
            sec=train(net,start,fed,peak,s)
            print(arm,rank,count(net.trainable_weights),peak,kind,round(sec,1),"train",accuracy(net,a,ds.y_train),"val",accuracy(net,a_val,ds.y_val),"test",accuracy(net,a_test,ds.y_test),flush=True)
