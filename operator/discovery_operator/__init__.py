"""The reconciler: kopf handlers that only enqueue, and observe, decide, execute behind them."""
