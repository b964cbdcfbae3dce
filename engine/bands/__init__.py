"""What of a matrix depends on the order of its elements: sums of rows, columns and products of neighbours.

A matrix is cut into bands of whole rows, by its shape alone. Each is measured by itself, always in the same
order of operations, and what is known of several is put together so that it does not matter which were known
first: rows lie side by side, sums of columns are added up along a binary tree of bands, and single numbers
are added up without rounding.

    measure(x) == combine(measure(part) for part in cut(x))       for every cut and every order, to the bit

The first and last rows of what was measured are kept for the products with the rows beyond, and elements that
fill no band are kept as they are, until the others come.
"""
