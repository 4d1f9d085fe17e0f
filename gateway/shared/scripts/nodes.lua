-- The nodes that live, by their names.
-- -> {node, …}
return call('ZRANGE', P .. 'names', 0, -1)
