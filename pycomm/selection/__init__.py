"""Which algorithm a call uses: the facts it goes by, the candidates, their prices."""
