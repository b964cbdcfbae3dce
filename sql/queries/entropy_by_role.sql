-- How much information do the weights of each role carry, in bits an element?
-- param subject = NULL: only this subject; all when NULL
-- Means over the elements. Of 32-bit floats the entropy is that of the top 16 bits.
SELECT
    subject, role, dtype,
    count(*) AS matrices,
    sum(finite)::UBIGINT AS n,
    sum(entropy * finite) / sum(finite) AS entropy,
    sum(gaussian_entropy * finite) / sum(finite) FILTER (std > 0) AS gaussian_entropy,
    sum(entropy_gap * finite) / sum(finite) FILTER (std > 0) AS entropy_gap
FROM tensor_stats
WHERE is_matrix AND ($subject IS NULL OR subject = $subject)
GROUP BY subject_id, subject, role, dtype
ORDER BY subject_id, entropy DESC, role, dtype;
