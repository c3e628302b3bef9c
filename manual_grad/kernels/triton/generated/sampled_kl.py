# Written by python -m manual_grad.generate from losses/pointwise/sampled_kl.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_j_1_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    w = inputs[2]
    v1 = w == 0.0
    v2 = x0 - x
    v3 = -v2
    v4 = w * v3
    v5 = tl.where(v1, 0.0, v4)
    return v5


@triton.jit
def slopes_j_1_w(inputs, options):
    w = inputs[2]
    v1 = w == 0.0
    v2 = w * -1.0
    v3 = tl.where(v1, 0.0, v2)
    v4 = -v3
    v5 = tl.zeros_like(w) + 0.0
    return v4, v3, v5


@triton.jit
def value_j_1_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    v1 = x0 - x
    v2 = -v1
    return v2


@triton.jit
def slopes_j_1_no_w(inputs, options):
    x = inputs[0]
    v1 = tl.zeros_like(x) + 1.0
    v2 = tl.zeros_like(x) + -1.0
    return v1, v2, 0.0 * x


@triton.jit
def value_j_2_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    w = inputs[2]
    v1 = w == 0.0
    v2 = x0 - x
    v3 = 0.5 * v2
    v4 = v3 * v2
    v5 = w * v4
    v6 = tl.where(v1, 0.0, v5)
    return v6


@triton.jit
def slopes_j_2_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    w = inputs[2]
    v1 = w == 0.0
    v2 = x0 - x
    v3 = w * v2
    v4 = tl.where(v1, 0.0, v3)
    v5 = -v4
    v6 = tl.zeros_like(x) + 0.0
    return v5, v4, v6


@triton.jit
def value_j_2_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    v1 = x0 - x
    v2 = 0.5 * v1
    v3 = v2 * v1
    return v3


@triton.jit
def slopes_j_2_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    v1 = x0 - x
    v2 = -v1
    return v2, v1, 0.0 * x


@triton.jit
def value_other_j_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    w = inputs[2]
    v1 = w == 0.0
    v2 = x0 - x
    v3 = tl.abs(v2)
    v4 = v3 < 1.0
    v5 = 0.5 * v2
    v6 = v5 * v2
    v7 = tl.where(v4, v2, 0.0)
    v8 = v7 * 1.0
    v9 = v8 * 0.05555555555555555
    v10 = 1.0 + v9
    v11 = v7 * v10
    v12 = v11 * 0.058823529411764705
    v13 = 1.0 + v12
    v14 = v7 * v13
    v15 = v14 * 0.0625
    v16 = 1.0 + v15
    v17 = v7 * v16
    v18 = v17 * 0.06666666666666667
    v19 = 1.0 + v18
    v20 = v7 * v19
    v21 = v20 * 0.07142857142857142
    v22 = 1.0 + v21
    v23 = v7 * v22
    v24 = v23 * 0.07692307692307693
    v25 = 1.0 + v24
    v26 = v7 * v25
    v27 = v26 * 0.08333333333333333
    v28 = 1.0 + v27
    v29 = v7 * v28
    v30 = v29 * 0.09090909090909091
    v31 = 1.0 + v30
    v32 = v7 * v31
    v33 = v32 * 0.1
    v34 = 1.0 + v33
    v35 = v7 * v34
    v36 = v35 * 0.1111111111111111
    v37 = 1.0 + v36
    v38 = v7 * v37
    v39 = v38 * 0.125
    v40 = 1.0 + v39
    v41 = v7 * v40
    v42 = v41 * 0.14285714285714285
    v43 = 1.0 + v42
    v44 = v7 * v43
    v45 = v44 * 0.16666666666666666
    v46 = 1.0 + v45
    v47 = v7 * v46
    v48 = v47 * 0.2
    v49 = 1.0 + v48
    v50 = v7 * v49
    v51 = v50 * 0.25
    v52 = 1.0 + v51
    v53 = v7 * v52
    v54 = v53 * 0.3333333333333333
    v55 = 1.0 + v54
    v56 = v6 * v55
    v57 = exp(v2)
    v58 = v57 == float("inf")
    v59 = v57 - 1.0
    v60 = v59 - v2
    v61 = tl.where(v58, v57, v60)
    v62 = tl.where(v4, v56, v61)
    v63 = w * v62
    v64 = tl.where(v1, 0.0, v63)
    return v64


@triton.jit
def slopes_other_j_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    w = inputs[2]
    v1 = w == 0.0
    v2 = x0 - x
    v3 = tl.abs(v2)
    v4 = v3 < 1.0
    v5 = 0.5 * v2
    v6 = v5 * v2
    v7 = tl.where(v4, v2, 0.0)
    v8 = v7 * 1.0
    v9 = v8 * 0.05555555555555555
    v10 = 1.0 + v9
    v11 = v7 * v10
    v12 = v11 * 0.058823529411764705
    v13 = 1.0 + v12
    v14 = v7 * v13
    v15 = v14 * 0.0625
    v16 = 1.0 + v15
    v17 = v7 * v16
    v18 = v17 * 0.06666666666666667
    v19 = 1.0 + v18
    v20 = v7 * v19
    v21 = v20 * 0.07142857142857142
    v22 = 1.0 + v21
    v23 = v7 * v22
    v24 = v23 * 0.07692307692307693
    v25 = 1.0 + v24
    v26 = v7 * v25
    v27 = v26 * 0.08333333333333333
    v28 = 1.0 + v27
    v29 = v7 * v28
    v30 = v29 * 0.09090909090909091
    v31 = 1.0 + v30
    v32 = v7 * v31
    v33 = v32 * 0.1
    v34 = 1.0 + v33
    v35 = v7 * v34
    v36 = v35 * 0.1111111111111111
    v37 = 1.0 + v36
    v38 = v7 * v37
    v39 = v38 * 0.125
    v40 = 1.0 + v39
    v41 = v7 * v40
    v42 = v41 * 0.14285714285714285
    v43 = 1.0 + v42
    v44 = v7 * v43
    v45 = v44 * 0.16666666666666666
    v46 = 1.0 + v45
    v47 = v7 * v46
    v48 = v47 * 0.2
    v49 = 1.0 + v48
    v50 = v7 * v49
    v51 = v50 * 0.25
    v52 = 1.0 + v51
    v53 = v7 * v52
    v54 = v53 * 0.3333333333333333
    v55 = 1.0 + v54
    v56 = v6 * v55
    v57 = exp(v2)
    v58 = v57 == float("inf")
    v59 = v57 - 1.0
    v60 = v59 - v2
    v61 = tl.where(v58, v57, v60)
    v62 = tl.where(v4, v56, v61)
    v63 = v2 + v62
    v64 = tl.where(v4, v63, v59)
    v65 = w * v64
    v66 = tl.where(v1, 0.0, v65)
    v67 = -v66
    v68 = tl.zeros_like(x) + 0.0
    return v67, v66, v68


@triton.jit
def value_other_j_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    v1 = x0 - x
    v2 = tl.abs(v1)
    v3 = v2 < 1.0
    v4 = 0.5 * v1
    v5 = v4 * v1
    v6 = tl.where(v3, v1, 0.0)
    v7 = v6 * 1.0
    v8 = v7 * 0.05555555555555555
    v9 = 1.0 + v8
    v10 = v6 * v9
    v11 = v10 * 0.058823529411764705
    v12 = 1.0 + v11
    v13 = v6 * v12
    v14 = v13 * 0.0625
    v15 = 1.0 + v14
    v16 = v6 * v15
    v17 = v16 * 0.06666666666666667
    v18 = 1.0 + v17
    v19 = v6 * v18
    v20 = v19 * 0.07142857142857142
    v21 = 1.0 + v20
    v22 = v6 * v21
    v23 = v22 * 0.07692307692307693
    v24 = 1.0 + v23
    v25 = v6 * v24
    v26 = v25 * 0.08333333333333333
    v27 = 1.0 + v26
    v28 = v6 * v27
    v29 = v28 * 0.09090909090909091
    v30 = 1.0 + v29
    v31 = v6 * v30
    v32 = v31 * 0.1
    v33 = 1.0 + v32
    v34 = v6 * v33
    v35 = v34 * 0.1111111111111111
    v36 = 1.0 + v35
    v37 = v6 * v36
    v38 = v37 * 0.125
    v39 = 1.0 + v38
    v40 = v6 * v39
    v41 = v40 * 0.14285714285714285
    v42 = 1.0 + v41
    v43 = v6 * v42
    v44 = v43 * 0.16666666666666666
    v45 = 1.0 + v44
    v46 = v6 * v45
    v47 = v46 * 0.2
    v48 = 1.0 + v47
    v49 = v6 * v48
    v50 = v49 * 0.25
    v51 = 1.0 + v50
    v52 = v6 * v51
    v53 = v52 * 0.3333333333333333
    v54 = 1.0 + v53
    v55 = v5 * v54
    v56 = exp(v1)
    v57 = v56 == float("inf")
    v58 = v56 - 1.0
    v59 = v58 - v1
    v60 = tl.where(v57, v56, v59)
    v61 = tl.where(v3, v55, v60)
    return v61


@triton.jit
def slopes_other_j_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    v1 = x0 - x
    v2 = tl.abs(v1)
    v3 = v2 < 1.0
    v4 = 0.5 * v1
    v5 = v4 * v1
    v6 = tl.where(v3, v1, 0.0)
    v7 = v6 * 1.0
    v8 = v7 * 0.05555555555555555
    v9 = 1.0 + v8
    v10 = v6 * v9
    v11 = v10 * 0.058823529411764705
    v12 = 1.0 + v11
    v13 = v6 * v12
    v14 = v13 * 0.0625
    v15 = 1.0 + v14
    v16 = v6 * v15
    v17 = v16 * 0.06666666666666667
    v18 = 1.0 + v17
    v19 = v6 * v18
    v20 = v19 * 0.07142857142857142
    v21 = 1.0 + v20
    v22 = v6 * v21
    v23 = v22 * 0.07692307692307693
    v24 = 1.0 + v23
    v25 = v6 * v24
    v26 = v25 * 0.08333333333333333
    v27 = 1.0 + v26
    v28 = v6 * v27
    v29 = v28 * 0.09090909090909091
    v30 = 1.0 + v29
    v31 = v6 * v30
    v32 = v31 * 0.1
    v33 = 1.0 + v32
    v34 = v6 * v33
    v35 = v34 * 0.1111111111111111
    v36 = 1.0 + v35
    v37 = v6 * v36
    v38 = v37 * 0.125
    v39 = 1.0 + v38
    v40 = v6 * v39
    v41 = v40 * 0.14285714285714285
    v42 = 1.0 + v41
    v43 = v6 * v42
    v44 = v43 * 0.16666666666666666
    v45 = 1.0 + v44
    v46 = v6 * v45
    v47 = v46 * 0.2
    v48 = 1.0 + v47
    v49 = v6 * v48
    v50 = v49 * 0.25
    v51 = 1.0 + v50
    v52 = v6 * v51
    v53 = v52 * 0.3333333333333333
    v54 = 1.0 + v53
    v55 = v5 * v54
    v56 = exp(v1)
    v57 = v56 == float("inf")
    v58 = v56 - 1.0
    v59 = v58 - v1
    v60 = tl.where(v57, v56, v59)
    v61 = tl.where(v3, v55, v60)
    v62 = v1 + v61
    v63 = tl.where(v3, v62, v58)
    v64 = -v63
    return v64, v63, 0.0 * x


LOSS = Loss(
    inputs=3,
    optional=(2,),
    options=1,
    factor=1,
    choices=(("option", 0, (1.0, 2.0)), ("input", 2, ())),
    variants={
        (1.0, True): (value_j_1_w, slopes_j_1_w),
        (1.0, False): (value_j_1_no_w, slopes_j_1_no_w),
        (2.0, True): (value_j_2_w, slopes_j_2_w),
        (2.0, False): (value_j_2_no_w, slopes_j_2_no_w),
        (None, True): (value_other_j_w, slopes_other_j_w),
        (None, False): (value_other_j_no_w, slopes_other_j_no_w),
    },
)
