-- What other formats say of a tensor: torch ties weights, quantised models keep codes and factors.

ALTER TABLE tensors ADD COLUMN alias_of VARCHAR;  -- the tensor that is stored in the same place and counted there
ALTER TABLE tensors ADD COLUMN form VARCHAR;      -- codes, factors, dequantised, unscaled (codes without usable factors), outside (no weight), or NULL
