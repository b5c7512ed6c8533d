"""What people build with TensorFlow and Keras, right and wrong, with the verdict that each has earned."""
