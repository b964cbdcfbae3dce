-- What does another warehouse have to know of a run?
-- param run_id = 1: the run
-- param subject_key = NULL: what the subject of its dW is the same by everywhere
SELECT
    name AS run, * EXCLUDE (run_id, name, subject_id) REPLACE (spec::VARCHAR AS spec),
    $subject_key::VARCHAR AS subject_key
FROM runs
WHERE run_id = $run_id AND status IN ('complete', 'failed');
