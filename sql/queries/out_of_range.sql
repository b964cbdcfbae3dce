-- Which tensors have elements that a conversion to another number format would turn to infinity or zero?
-- param subject = NULL: only this subject; all when NULL
-- param largest = 65504: the format's largest number (F16; 448 for F8_E4M3, 57344 for F8_E5M2)
-- param smallest = 2.98e-8: half of its smallest one (F16; 9.77e-4 for F8_E4M3, 7.63e-6 for F8_E5M2)
-- param limit = 20: how many rows; all when NULL
SELECT
    t.subject, t.name, t.dtype, t.n,
    coalesce(sum(v.n) FILTER (abs(v.value) > $largest), 0)::UBIGINT AS too_large,
    coalesce(sum(v.n) FILTER (v.value <> 0 AND abs(v.value) < $smallest), 0)::UBIGINT AS too_small,
    too_small / t.n AS too_small_ratio,
    greatest(abs(t.min), abs(t.max)) AS max_abs
FROM tensor_stats t
JOIN value_counts v USING (tensor_id)
WHERE isfinite(v.value) AND ($subject IS NULL OR t.subject = $subject)
GROUP BY t.subject_id, t.subject, t.ordinal, t.tensor_id, t.name, t.dtype, t.n, t.min, t.max
HAVING too_large + too_small > 0
ORDER BY too_large DESC, too_small DESC, t.subject_id, t.ordinal
LIMIT $limit;
