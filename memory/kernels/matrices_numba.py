"""What kernels do with small matrices: products with vectors, sums and copies, written out so that a compiler makes vectors of them.

Two or four rows of a matrix at a time, where sums over rows would otherwise be stored and loaded again for each.
"""

from __future__ import annotations

from typing import no_type_check

from memory.kernels.compiled import compiled


@compiled()
@no_type_check
def transposed_times(matrix, x, out):
    """out = matrix^T x."""
    rows, columns = matrix.shape
    whole = rows - rows % 4
    out[:] = 0
    for i in range(0, whole, 4):
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        m0, m1, m2, m3 = matrix[i], matrix[i + 1], matrix[i + 2], matrix[i + 3]
        for j in range(columns):
            out[j] += (x0 * m0[j] + x1 * m1[j]) + (x2 * m2[j] + x3 * m3[j])
    for i in range(whole, rows):
        x0, m0 = x[i], matrix[i]
        for j in range(columns):
            out[j] += x0 * m0[j]


@compiled()
@no_type_check
def times(matrix, x, out):
    """out = matrix x."""
    rows, columns = matrix.shape
    zero = matrix.dtype.type(0)
    for i in range(0, rows - 1, 2):
        m0, m1 = matrix[i], matrix[i + 1]
        sum0, sum1 = zero, zero
        for j in range(columns):
            sum0 += m0[j] * x[j]
            sum1 += m1[j] * x[j]
        out[i], out[i + 1] = sum0, sum1
    if rows % 2:
        out[rows - 1] = dot(matrix[rows - 1], x)


@compiled()
@no_type_check
def dot(a, b):
    total = a.dtype.type(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@compiled()
@no_type_check
def add(matrix, more):
    rows, columns = matrix.shape
    for i in range(rows):
        row, other = matrix[i], more[i]
        for j in range(columns):
            row[j] += other[j]


@compiled()
@no_type_check
def add_outer(matrix, left, right):
    """matrix += left right^T."""
    for i in range(len(left)):
        row, factor = matrix[i], left[i]
        for j in range(len(right)):
            row[j] += factor * right[j]


@compiled()
@no_type_check
def copy(matrix, out):
    rows, columns = matrix.shape
    for i in range(rows):
        row, other = matrix[i], out[i]
        for j in range(columns):
            other[j] = row[j]
