-- Which matrices does one subject have, where do they sit, and how do they spread?
-- param subject_id = 1: the subject
SELECT
    tensor_id, name, part, layer, role,
    regexp_replace(module, '(^|\.)[0-9]+(\.|$)', '\1*\2', 'g') AS module,  -- experts are one module
    coding, finite::DOUBLE AS finite, mean, m2, coalesce(shape_class, 'not known') AS shape_class
FROM tensor_stats
WHERE subject_id = $subject_id AND is_matrix
ORDER BY ordinal;
