# Written by python -m manual_grad.generate from losses/pointwise/grpo_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import at_least, at_most, exp
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    A = inputs[2]
    y = inputs[3]
    w = inputs[4]
    low = options[0]
    high = options[1]
    delta = options[2]
    beta = options[3]
    v1 = w == 0.0
    v2 = -A
    v3 = A < 0.0
    v4 = x - x0
    v5 = exp(v4)
    v6 = at_least(v5, low.to(x.dtype))
    v7 = at_most(v6, delta.to(x.dtype))
    v8 = at_most(v5, high.to(x.dtype))
    v9 = tl.where(v3, v7, v8)
    v10 = y - x
    v11 = tl.abs(v10)
    v12 = v11 < 1.0
    v13 = 0.5 * v10
    v14 = v13 * v10
    v15 = tl.where(v12, v10, 0.0)
    v16 = v15 * 1.0
    v17 = v16 * 0.05555555555555555
    v18 = 1.0 + v17
    v19 = v15 * v18
    v20 = v19 * 0.058823529411764705
    v21 = 1.0 + v20
    v22 = v15 * v21
    v23 = v22 * 0.0625
    v24 = 1.0 + v23
    v25 = v15 * v24
    v26 = v25 * 0.06666666666666667
    v27 = 1.0 + v26
    v28 = v15 * v27
    v29 = v28 * 0.07142857142857142
    v30 = 1.0 + v29
    v31 = v15 * v30
    v32 = v31 * 0.07692307692307693
    v33 = 1.0 + v32
    v34 = v15 * v33
    v35 = v34 * 0.08333333333333333
    v36 = 1.0 + v35
    v37 = v15 * v36
    v38 = v37 * 0.09090909090909091
    v39 = 1.0 + v38
    v40 = v15 * v39
    v41 = v40 * 0.1
    v42 = 1.0 + v41
    v43 = v15 * v42
    v44 = v43 * 0.1111111111111111
    v45 = 1.0 + v44
    v46 = v15 * v45
    v47 = v46 * 0.125
    v48 = 1.0 + v47
    v49 = v15 * v48
    v50 = v49 * 0.14285714285714285
    v51 = 1.0 + v50
    v52 = v15 * v51
    v53 = v52 * 0.16666666666666666
    v54 = 1.0 + v53
    v55 = v15 * v54
    v56 = v55 * 0.2
    v57 = 1.0 + v56
    v58 = v15 * v57
    v59 = v58 * 0.25
    v60 = 1.0 + v59
    v61 = v15 * v60
    v62 = v61 * 0.3333333333333333
    v63 = 1.0 + v62
    v64 = v14 * v63
    v65 = exp(v10)
    v66 = v65 == float("inf")
    v67 = v65 - 1.0
    v68 = v67 - v10
    v69 = tl.where(v66, v65, v68)
    v70 = tl.where(v12, v64, v69)
    v71 = beta.to(x.dtype) * v70
    v72 = tl.fma(v2, v9, v71)
    v73 = w * v72
    v74 = tl.where(v1, 0.0, v73)
    return v74


@triton.jit
def slopes_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    A = inputs[2]
    y = inputs[3]
    w = inputs[4]
    low = options[0]
    high = options[1]
    delta = options[2]
    beta = options[3]
    v1 = w == 0.0
    v2 = A < 0.0
    v3 = x - x0
    v4 = exp(v3)
    v5 = low.to(x.dtype) > v4
    v6 = delta.to(x.dtype) < v4
    v7 = v5 | v6
    v8 = v2 & v7
    v9 = v2 == 0
    v10 = high.to(x.dtype) < v4
    v11 = v9 & v10
    v12 = v8 | v11
    v13 = -A
    v14 = v13 * v4
    v15 = tl.where(v12, 0.0, v14)
    v16 = y - x
    v17 = tl.abs(v16)
    v18 = v17 < 1.0
    v19 = 0.5 * v16
    v20 = v19 * v16
    v21 = tl.where(v18, v16, 0.0)
    v22 = v21 * 1.0
    v23 = v22 * 0.05555555555555555
    v24 = 1.0 + v23
    v25 = v21 * v24
    v26 = v25 * 0.058823529411764705
    v27 = 1.0 + v26
    v28 = v21 * v27
    v29 = v28 * 0.0625
    v30 = 1.0 + v29
    v31 = v21 * v30
    v32 = v31 * 0.06666666666666667
    v33 = 1.0 + v32
    v34 = v21 * v33
    v35 = v34 * 0.07142857142857142
    v36 = 1.0 + v35
    v37 = v21 * v36
    v38 = v37 * 0.07692307692307693
    v39 = 1.0 + v38
    v40 = v21 * v39
    v41 = v40 * 0.08333333333333333
    v42 = 1.0 + v41
    v43 = v21 * v42
    v44 = v43 * 0.09090909090909091
    v45 = 1.0 + v44
    v46 = v21 * v45
    v47 = v46 * 0.1
    v48 = 1.0 + v47
    v49 = v21 * v48
    v50 = v49 * 0.1111111111111111
    v51 = 1.0 + v50
    v52 = v21 * v51
    v53 = v52 * 0.125
    v54 = 1.0 + v53
    v55 = v21 * v54
    v56 = v55 * 0.14285714285714285
    v57 = 1.0 + v56
    v58 = v21 * v57
    v59 = v58 * 0.16666666666666666
    v60 = 1.0 + v59
    v61 = v21 * v60
    v62 = v61 * 0.2
    v63 = 1.0 + v62
    v64 = v21 * v63
    v65 = v64 * 0.25
    v66 = 1.0 + v65
    v67 = v21 * v66
    v68 = v67 * 0.3333333333333333
    v69 = 1.0 + v68
    v70 = v20 * v69
    v71 = exp(v16)
    v72 = v71 == float("inf")
    v73 = v71 - 1.0
    v74 = v73 - v16
    v75 = tl.where(v72, v71, v74)
    v76 = tl.where(v18, v70, v75)
    v77 = v16 + v76
    v78 = tl.where(v18, v77, v73)
    v79 = beta.to(x.dtype) * v78
    v80 = v15 - v79
    v81 = w * v80
    v82 = tl.where(v1, 0.0, v81)
    v83 = -v15
    v84 = w * v83
    v85 = tl.where(v1, 0.0, v84)
    v86 = tl.zeros_like(x) + 0.0
    v87 = w * v79
    v88 = tl.where(v1, 0.0, v87)
    return v82, v85, v86, v88, v86


@triton.jit
def value_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    A = inputs[2]
    y = inputs[3]
    low = options[0]
    high = options[1]
    delta = options[2]
    beta = options[3]
    v1 = -A
    v2 = A < 0.0
    v3 = x - x0
    v4 = exp(v3)
    v5 = at_least(v4, low.to(x.dtype))
    v6 = at_most(v5, delta.to(x.dtype))
    v7 = at_most(v4, high.to(x.dtype))
    v8 = tl.where(v2, v6, v7)
    v9 = y - x
    v10 = tl.abs(v9)
    v11 = v10 < 1.0
    v12 = 0.5 * v9
    v13 = v12 * v9
    v14 = tl.where(v11, v9, 0.0)
    v15 = v14 * 1.0
    v16 = v15 * 0.05555555555555555
    v17 = 1.0 + v16
    v18 = v14 * v17
    v19 = v18 * 0.058823529411764705
    v20 = 1.0 + v19
    v21 = v14 * v20
    v22 = v21 * 0.0625
    v23 = 1.0 + v22
    v24 = v14 * v23
    v25 = v24 * 0.06666666666666667
    v26 = 1.0 + v25
    v27 = v14 * v26
    v28 = v27 * 0.07142857142857142
    v29 = 1.0 + v28
    v30 = v14 * v29
    v31 = v30 * 0.07692307692307693
    v32 = 1.0 + v31
    v33 = v14 * v32
    v34 = v33 * 0.08333333333333333
    v35 = 1.0 + v34
    v36 = v14 * v35
    v37 = v36 * 0.09090909090909091
    v38 = 1.0 + v37
    v39 = v14 * v38
    v40 = v39 * 0.1
    v41 = 1.0 + v40
    v42 = v14 * v41
    v43 = v42 * 0.1111111111111111
    v44 = 1.0 + v43
    v45 = v14 * v44
    v46 = v45 * 0.125
    v47 = 1.0 + v46
    v48 = v14 * v47
    v49 = v48 * 0.14285714285714285
    v50 = 1.0 + v49
    v51 = v14 * v50
    v52 = v51 * 0.16666666666666666
    v53 = 1.0 + v52
    v54 = v14 * v53
    v55 = v54 * 0.2
    v56 = 1.0 + v55
    v57 = v14 * v56
    v58 = v57 * 0.25
    v59 = 1.0 + v58
    v60 = v14 * v59
    v61 = v60 * 0.3333333333333333
    v62 = 1.0 + v61
    v63 = v13 * v62
    v64 = exp(v9)
    v65 = v64 == float("inf")
    v66 = v64 - 1.0
    v67 = v66 - v9
    v68 = tl.where(v65, v64, v67)
    v69 = tl.where(v11, v63, v68)
    v70 = beta.to(x.dtype) * v69
    v71 = tl.fma(v1, v8, v70)
    return v71


@triton.jit
def slopes_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    A = inputs[2]
    y = inputs[3]
    low = options[0]
    high = options[1]
    delta = options[2]
    beta = options[3]
    v1 = A < 0.0
    v2 = x - x0
    v3 = exp(v2)
    v4 = low.to(x.dtype) > v3
    v5 = delta.to(x.dtype) < v3
    v6 = v4 | v5
    v7 = v1 & v6
    v8 = v1 == 0
    v9 = high.to(x.dtype) < v3
    v10 = v8 & v9
    v11 = v7 | v10
    v12 = -A
    v13 = v12 * v3
    v14 = tl.where(v11, 0.0, v13)
    v15 = y - x
    v16 = tl.abs(v15)
    v17 = v16 < 1.0
    v18 = 0.5 * v15
    v19 = v18 * v15
    v20 = tl.where(v17, v15, 0.0)
    v21 = v20 * 1.0
    v22 = v21 * 0.05555555555555555
    v23 = 1.0 + v22
    v24 = v20 * v23
    v25 = v24 * 0.058823529411764705
    v26 = 1.0 + v25
    v27 = v20 * v26
    v28 = v27 * 0.0625
    v29 = 1.0 + v28
    v30 = v20 * v29
    v31 = v30 * 0.06666666666666667
    v32 = 1.0 + v31
    v33 = v20 * v32
    v34 = v33 * 0.07142857142857142
    v35 = 1.0 + v34
    v36 = v20 * v35
    v37 = v36 * 0.07692307692307693
    v38 = 1.0 + v37
    v39 = v20 * v38
    v40 = v39 * 0.08333333333333333
    v41 = 1.0 + v40
    v42 = v20 * v41
    v43 = v42 * 0.09090909090909091
    v44 = 1.0 + v43
    v45 = v20 * v44
    v46 = v45 * 0.1
    v47 = 1.0 + v46
    v48 = v20 * v47
    v49 = v48 * 0.1111111111111111
    v50 = 1.0 + v49
    v51 = v20 * v50
    v52 = v51 * 0.125
    v53 = 1.0 + v52
    v54 = v20 * v53
    v55 = v54 * 0.14285714285714285
    v56 = 1.0 + v55
    v57 = v20 * v56
    v58 = v57 * 0.16666666666666666
    v59 = 1.0 + v58
    v60 = v20 * v59
    v61 = v60 * 0.2
    v62 = 1.0 + v61
    v63 = v20 * v62
    v64 = v63 * 0.25
    v65 = 1.0 + v64
    v66 = v20 * v65
    v67 = v66 * 0.3333333333333333
    v68 = 1.0 + v67
    v69 = v19 * v68
    v70 = exp(v15)
    v71 = v70 == float("inf")
    v72 = v70 - 1.0
    v73 = v72 - v15
    v74 = tl.where(v71, v70, v73)
    v75 = tl.where(v17, v69, v74)
    v76 = v15 + v75
    v77 = tl.where(v17, v76, v72)
    v78 = beta.to(x.dtype) * v77
    v79 = v14 - v78
    v80 = -v14
    v81 = tl.zeros_like(x) + 0.0
    return v79, v80, v81, v78, 0.0 * x


LOSS = Loss(
    inputs=5,
    optional=(4,),
    options=4,
    factor=1,
    block=256,
    choices=(("input", 4, ()),),
    variants={
        (True,): (value_w, slopes_w),
        (False,): (value_no_w, slopes_no_w),
    },
)
