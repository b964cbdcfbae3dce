-- Counts do not know rows, a scan with --iid does: so rows of zeros are known where rows are.

ALTER TABLE iid ADD COLUMN zero_rows UBIGINT;  -- of `matrix`, zeros throughout; NULL when not known
ALTER TABLE tensors DROP COLUMN zero_rows;     -- which was never filled
