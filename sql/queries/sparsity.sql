-- Which tensors hold the largest share of zeros?
-- param subject = NULL: only this subject; all when NULL
-- param limit = 20: how many rows; all when NULL
-- zero_rows is known of what was scanned with --iid: rows of the matrix that it was seen as, zeros throughout.
SELECT subject, name, zeros / finite AS zero_ratio, zeros, zero_rows, role, shape, n
FROM tensor_stats
WHERE zeros > 0 AND ($subject IS NULL OR subject = $subject)
ORDER BY zero_ratio DESC, zeros DESC, subject_id, ordinal
LIMIT $limit;
