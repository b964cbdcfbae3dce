-- Which checkpoints could no census take in, and why?
SELECT uri, status, reason, first_at, last_at
FROM refusals
ORDER BY last_at DESC, uri;
