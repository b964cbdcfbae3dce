-- The filter at the standard thresholds, with names: 3 and 2 sigma, with and without the 1e-3 floor (Table 5).
CREATE OR REPLACE VIEW filter_stats AS
SELECT t.subject_id, t.subject, t.name, t.part, t.layer, t.module, t.role, t.is_matrix, f.*
FROM filtered f
JOIN tensor_stats t USING (tensor_id);
