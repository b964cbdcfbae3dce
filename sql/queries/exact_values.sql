-- Which values does a tensor hold the most often?
-- param subject = NULL: only this subject; all when NULL
-- param tensor = NULL: only the tensor of this name; all when NULL
-- param limit = 20: how many rows; all when NULL
-- Of 32-bit floats a row is the values between low and high, and their mean.
SELECT v.subject, v.name, v.value, v.n, v.n / t.n AS ratio, v.low, v.high
FROM value_counts v
JOIN tensors t USING (tensor_id)
WHERE ($subject IS NULL OR v.subject = $subject) AND ($tensor IS NULL OR v.name = $tensor)
ORDER BY v.n DESC, v.tensor_id, v.value
LIMIT $limit;
