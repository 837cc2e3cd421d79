"""Programs that a bundle carries: each one stands alone and needs neither tl_keras nor Keras."""
