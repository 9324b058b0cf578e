import os

# Torch's threads wait for each other busily; where other work has the cores too, that makes a second of it a minute.
# To be known before torch is loaded, here and in the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
