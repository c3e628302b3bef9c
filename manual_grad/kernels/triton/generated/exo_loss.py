# Written by python -m manual_grad.generate from losses/pointwise/exo_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp, log1p
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    beta = options[0]
    right = options[1]
    wrong = options[2]
    v1 = x - x0
    v2 = y - y0
    v3 = v1 - v2
    v4 = beta.to(x.dtype) * v3
    v5 = v4 < 0.0
    v6 = wrong - right
    v7 = v6.to(x.dtype) - v4
    v8 = -v7
    v9 = tl.where(v5, v7, v8)
    v10 = tl.abs(v9)
    v11 = v10 < 0.5
    v12 = tl.abs(v4)
    v13 = -v12
    v14 = exp(v13)
    v15 = 1.0 + v14
    v16 = v14 / v15
    v17 = tl.where(v11, v9, 0.0)
    v18 = tl.abs(v17)
    v19 = v18 < 1.0
    v20 = 0.5 * v17
    v21 = v20 * v17
    v22 = tl.where(v19, v17, 0.0)
    v23 = v22 * 1.0
    v24 = v23 * 0.05555555555555555
    v25 = 1.0 + v24
    v26 = v22 * v25
    v27 = v26 * 0.058823529411764705
    v28 = 1.0 + v27
    v29 = v22 * v28
    v30 = v29 * 0.0625
    v31 = 1.0 + v30
    v32 = v22 * v31
    v33 = v32 * 0.06666666666666667
    v34 = 1.0 + v33
    v35 = v22 * v34
    v36 = v35 * 0.07142857142857142
    v37 = 1.0 + v36
    v38 = v22 * v37
    v39 = v38 * 0.07692307692307693
    v40 = 1.0 + v39
    v41 = v22 * v40
    v42 = v41 * 0.08333333333333333
    v43 = 1.0 + v42
    v44 = v22 * v43
    v45 = v44 * 0.09090909090909091
    v46 = 1.0 + v45
    v47 = v22 * v46
    v48 = v47 * 0.1
    v49 = 1.0 + v48
    v50 = v22 * v49
    v51 = v50 * 0.1111111111111111
    v52 = 1.0 + v51
    v53 = v22 * v52
    v54 = v53 * 0.125
    v55 = 1.0 + v54
    v56 = v22 * v55
    v57 = v56 * 0.14285714285714285
    v58 = 1.0 + v57
    v59 = v22 * v58
    v60 = v59 * 0.16666666666666666
    v61 = 1.0 + v60
    v62 = v22 * v61
    v63 = v62 * 0.2
    v64 = 1.0 + v63
    v65 = v22 * v64
    v66 = v65 * 0.25
    v67 = 1.0 + v66
    v68 = v22 * v67
    v69 = v68 * 0.3333333333333333
    v70 = 1.0 + v69
    v71 = v21 * v70
    v72 = exp(v17)
    v73 = v72 == float("inf")
    v74 = v72 - 1.0
    v75 = v74 - v17
    v76 = tl.where(v73, v72, v75)
    v77 = tl.where(v19, v71, v76)
    v78 = v17 + v77
    v79 = v16 * v78
    v80 = log1p(v79)
    v81 = tl.abs(v80)
    v82 = v81 < 1.0
    v83 = 0.5 * v80
    v84 = v83 * v80
    v85 = tl.where(v82, v80, 0.0)
    v86 = v85 * 1.0
    v87 = v86 * 0.05555555555555555
    v88 = 1.0 + v87
    v89 = v85 * v88
    v90 = v89 * 0.058823529411764705
    v91 = 1.0 + v90
    v92 = v85 * v91
    v93 = v92 * 0.0625
    v94 = 1.0 + v93
    v95 = v85 * v94
    v96 = v95 * 0.06666666666666667
    v97 = 1.0 + v96
    v98 = v85 * v97
    v99 = v98 * 0.07142857142857142
    v100 = 1.0 + v99
    v101 = v85 * v100
    v102 = v101 * 0.07692307692307693
    v103 = 1.0 + v102
    v104 = v85 * v103
    v105 = v104 * 0.08333333333333333
    v106 = 1.0 + v105
    v107 = v85 * v106
    v108 = v107 * 0.09090909090909091
    v109 = 1.0 + v108
    v110 = v85 * v109
    v111 = v110 * 0.1
    v112 = 1.0 + v111
    v113 = v85 * v112
    v114 = v113 * 0.1111111111111111
    v115 = 1.0 + v114
    v116 = v85 * v115
    v117 = v116 * 0.125
    v118 = 1.0 + v117
    v119 = v85 * v118
    v120 = v119 * 0.14285714285714285
    v121 = 1.0 + v120
    v122 = v85 * v121
    v123 = v122 * 0.16666666666666666
    v124 = 1.0 + v123
    v125 = v85 * v124
    v126 = v125 * 0.2
    v127 = 1.0 + v126
    v128 = v85 * v127
    v129 = v128 * 0.25
    v130 = 1.0 + v129
    v131 = v85 * v130
    v132 = v131 * 0.3333333333333333
    v133 = 1.0 + v132
    v134 = v84 * v133
    v135 = exp(v80)
    v136 = v135 == float("inf")
    v137 = v135 - 1.0
    v138 = v137 - v80
    v139 = tl.where(v136, v135, v138)
    v140 = tl.where(v82, v134, v139)
    v141 = tl.fma(v16, v77, -v140)
    v142 = tl.where(v5, wrong.to(x.dtype), right.to(x.dtype)).to(x.dtype)
    v143 = log1p(v14)
    v144 = v142 - v143
    v145 = v16 == 0.0
    v146 = v10 == float("inf")
    v147 = v145 & v146
    v148 = v16 * v9
    v149 = tl.where(v147, 0.0, v148)
    v150 = v144 - v149
    v151 = tl.where(v11, v141, v150)
    return v151


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    beta = options[0]
    right = options[1]
    wrong = options[2]
    v1 = x - x0
    v2 = y - y0
    v3 = v1 - v2
    v4 = beta.to(x.dtype) * v3
    v5 = tl.abs(v4)
    v6 = -v5
    v7 = exp(v6)
    v8 = 1.0 + v7
    v9 = v8 * v8
    v10 = v7 / v9
    v11 = v10 == 0.0
    v12 = wrong - right
    v13 = v4 - v12.to(x.dtype)
    v14 = tl.abs(v13)
    v15 = v14 == float("inf")
    v16 = v11 & v15
    v17 = v10 * v13
    v18 = tl.where(v16, 0.0, v17)
    v19 = beta.to(x.dtype) * v18
    v20 = -v19
    v21 = -v20
    return v19, v20, v20, v21


LOSS = Loss(
    inputs=4,
    optional=(),
    options=3,
    factor=1,
    block=256,
    choices=(),
    variants={
        (): (value, slopes),
    },
)
